"""Mercure, topics and matching: one test for each rule.

The number in a test's name is that of a group of rules: 1.1 discovery, 1.2 topics and matching, 1.3
subscribing, 1.4 replay, 1.5 events, 1.6 publishing, 1.7 authorization, 1.8 cookies and other
origins, 1.9 presence, 1.10 security, 1.11 late changes of 1.0.
"""

from urllib.parse import quote

import pytest

from tests.http.mercure_stage import HUB, V0, V1, MercureHub, mercure_hub, target, token


async def seen(there: MercureHub, parameter: str, selector: str, *topics: str) -> list[str]:
    """Return which of these topics a reader of one selector sees."""
    ids = {await there.publish(topic): topic for topic in topics}
    cursor = "lastEventID" if parameter == "topic" else "last_event_id"
    shown = await there.shown(f"{HUB}?{parameter}={quote(selector, safe='')}&{cursor}=earliest")
    return [ids[one] for one in shown]


async def test_1_2_a_star_matches_all_topics() -> None:
    topics = ["a", "https://example.com/b", "\u00e9"]
    for parameter in ("topic", "match", "match_exact", "match_urlpattern"):
        async with mercure_hub() as there:
            assert await seen(there, parameter, "*", *topics) == topics


async def test_1_2_equal_strings_match_and_nothing_is_normalised() -> None:
    like = ["https://example.com/%7Ea", "https://EXAMPLE.com/~a", "https://example.com/b/../~a"]
    for parameter in ("topic", "match", "match_exact"):
        async with mercure_hub() as there:
            wanted = "https://example.com/~a"
            assert await seen(there, parameter, wanted, *like, wanted) == [wanted]


async def test_1_2_a_template_matches_itself_as_a_string() -> None:
    async with mercure_hub() as there:
        assert await seen(there, "topic", "/u/{id}", "/u/{id}") == ["/u/{id}"]
    async with mercure_hub() as there:
        assert await seen(there, "match", "/u/{id}", "/u/{id}", "/u/7") == ["/u/{id}"]


@pytest.mark.parametrize(
    ("template", "matching", "other"),
    [
        ("/u/{id}", ["/u/7", "/u/", "/u/a-b.c_d~", "/u/%20"], ["/u/7/x", "/u/\u00e9", "x/u/7"]),
        ("/u{/a,b}", ["/u", "/u/1", "/u/1/2"], ["/u/1/2/3", "/u1"]),
        ("/u{/a*}", ["/u/1/2/3"], ["/u/1?x"]),
        ("/{+path}", ["/a/b", "/", "/a?b=c"], ["a/b"]),
        ("/a{#f}", ["/a", "/a#x/y"], ["/ax"]),
        ("/a{.x}", ["/a", "/a.b"], ["/ab"]),
        ("/a{;x}", ["/a;x=1"], ["/a?x=1"]),
        ("/a{?x,y}", ["/a", "/a?x=1", "/a?x=1&y=2"], ["/a&x=1", "/a?x=1&y=2&z=3"]),
        ("/a?b=1{&x}", ["/a?b=1&x=1"], ["/a?b=1?x=1"]),
        ("/a.b/{id}", ["/a.b/1"], ["/axb/1"]),
        ("/{id", ["/{id"], ["/7"]),
    ],
)
async def test_1_2_a_uri_template_matches_as_the_reference_hub_has_it(
    template: str, matching: list[str], other: list[str]
) -> None:
    async with mercure_hub() as there:
        assert await seen(there, "topic", template, *matching, *other) == matching


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("/u/:id", ["/u/7", "http://localhost/u/7"], ["/u/7/x", "http://other/u/7", "/U/7"]),
        ("https://example.com/u/:id", ["https://example.com/u/7"], ["/u/7"]),
        ("https://*.example.com/*", ["https://a.example.com/b/c"], ["https://example.com/b"]),
        ("*://*/x", ["https://example.com/x"], ["https://example.com/X", "http://[", "\u00e9 :"]),
    ],
)
async def test_1_2_a_url_pattern_and_a_topic_are_resolved_against_the_hubs_url(
    pattern: str, matching: list[str], other: list[str]
) -> None:
    async with mercure_hub() as there:
        assert await seen(there, "match_urlpattern", pattern, *matching, *other) == matching


async def test_1_2_a_pattern_that_would_take_for_ever_matches_at_once_or_not_at_all() -> None:
    async with mercure_hub() as there:
        evil = "/((?:a+)+b)"
        topic = "/" + "a" * 1000
        assert await seen(there, "match_urlpattern", evil, topic) == []


async def test_1_2_a_star_cannot_be_published() -> None:
    async with mercure_hub() as there:
        for dialect in (V0, V1):
            by = token(dialect, publish=["*"])
            assert (await there.post(("topic", "*"), by=by)).status == 400


@pytest.mark.parametrize("control", ["\x00", "\n", "\x7f", "\x85", "\u200b", "\u202e", "\ufeff"])
async def test_1_2_topics_and_matchers_have_no_control_and_no_format_character(
    control: str,
) -> None:
    async with mercure_hub() as there:
        for dialect in (V0, V1):
            by = token(dialect, publish=["*"])
            assert (await there.post(("topic", f"a{control}b"), by=by)).status == 400
            assert (await there.ask(target(dialect, f"a{control}b"))).status == 400
        pattern = quote(f"/a{control}b")
        assert (await there.ask(f"{HUB}?match_urlpattern={pattern}")).status == 400


async def test_1_2_text_is_utf_8() -> None:
    async with mercure_hub() as there:
        for query in ("topic=%ff", "match=%c3%28", "match_urlpattern=%ed%a0%80"):
            assert (await there.ask(f"{HUB}?{query}")).status == 400
