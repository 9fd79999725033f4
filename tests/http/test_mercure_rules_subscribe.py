"""Mercure, discovery, subscribing, and what was changed last: one test for each rule."""

import json
from urllib.parse import quote

import pytest

from noti.authorization.grant import Dialect
from noti.http.config import HttpConfig
from noti.http.forms import FORM
from noti.http.subscription_request import MATCHERS_MAX
from tests import promises
from tests.http.mercure_stage import (
    DIALECTS,
    HUB,
    LAST_EVENT_ID,
    RESUMED_FROM,
    SELECT,
    V0,
    V1,
    bearer,
    mercure_hub,
    over_every_transport,
    target,
    token,
)
from tests.http.stage import events, ids

METADATA = "/.well-known/oauth-protected-resource/.well-known/mercure"
STREAM = b"text/event-stream"

both_dialects = pytest.mark.parametrize("dialect", DIALECTS)


async def test_1_1_the_hub_is_at_its_well_known_path() -> None:
    async with mercure_hub() as there, there.open("/.well-known/mercure?topic=a") as (response, _):
        assert response.status_code == 200


async def test_1_1_metadata_of_the_hub_are_json_for_get_and_head() -> None:
    async with mercure_hub(authorization={"issuer": "https://issuer.example"}) as there:
        answer = await there.ask(METADATA)
        assert answer.status == 200
        assert answer.headers[b"content-type"] == b"application/json"
        assert json.loads(answer.body) == {
            "resource": "http://localhost/.well-known/mercure",
            "authorization_servers": ["https://issuer.example"],
            "authorization_details_types_supported": ["https://mercure.rocks/authorization-detail"],
            "bearer_methods_supported": ["header"],
            "mercure_cookie": "__Secure-mercure_access_token",
            "mercure_matcher_types_supported": ["exact", "urlpattern"],
        }
        head = await there.ask(METADATA, method="HEAD")
        assert (head.status, head.body) == (200, "")
        assert head.headers[b"content-type"] == b"application/json"


async def test_1_1_a_hub_of_0_x_alone_has_no_metadata() -> None:
    config = HttpConfig(dialects=frozenset({V0}))
    async with mercure_hub(config, authorization={"protocol": "0"}) as there:
        assert (await there.ask(METADATA)).status == 404


@both_dialects
@over_every_transport
async def test_1_1_last_event_id_of_a_link_is_taken_as_a_query_parameter(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        first, second = await there.publish("a"), await there.publish("a")
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: first})
        assert await there.shown(where) == [second]


@both_dialects
@over_every_transport
async def test_1_3_several_topics_are_one_subscription_each(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = [await there.publish(topic) for topic in ("a", "b", "c")]
        where = target(dialect, "a", "c", **{LAST_EVENT_ID[dialect]: "earliest"})
        assert await there.shown(where) == [sent[0], sent[2]]


async def test_1_3_a_missing_topic_is_400_with_the_reference_hubs_words() -> None:
    async with mercure_hub() as there:
        answer = await there.ask(HUB)
        assert answer.status == 400
        assert answer.body.startswith('Missing "topic" parameter.')
        assert answer.headers[b"content-type"] == b"text/plain; charset=utf-8"


@over_every_transport
async def test_1_3_matchers_of_all_types_may_be_mixed(subprotocol: str | None) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = [await there.publish(topic) for topic in ("a", "b", "/u/7", "c")]
        query = "match=a&match_exact=b&match_urlpattern=/u/:id&last_event_id=earliest"
        assert await there.shown(f"{HUB}?{query}") == sent[:3]


@pytest.mark.parametrize(
    "query",
    [
        "Match=a",
        "MATCH=a",
        "match=a&Match_exact=b",
        "match_regex=a",
        "match=a&matches=b",
        "matchx=",
    ],
)
async def test_1_3_any_other_name_that_begins_with_match_is_400(query: str) -> None:
    async with mercure_hub() as there:
        answer = await there.ask(f"{HUB}?{query}")
        assert answer.status == 400
        assert answer.headers[b"content-type"] == b"application/problem+json"
        assert "lower case" in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    "query", ["match=", "match_urlpattern=", "match_urlpattern=http://[", "match_urlpattern=/(["]
)
async def test_1_3_a_bad_matcher_is_400(query: str) -> None:
    async with mercure_hub() as there:
        assert (await there.ask(f"{HUB}?{quote(query, safe='=&')}")).status == 400


@both_dialects
async def test_1_3_topics_have_a_limit_in_number_and_length(dialect: Dialect) -> None:
    name = SELECT[dialect]
    async with mercure_hub() as there:
        enough = "&".join([f"{name}=a"] * MATCHERS_MAX)
        async with there.open(f"{HUB}?{enough}") as (response, _):
            assert response.status_code == 200
        assert (await there.ask(f"{HUB}?{enough}&{name}=a")).status == 400
        async with there.open(target(dialect, "x" * 4096)) as (response, _):
            assert response.status_code == 200
        assert (await there.ask(target(dialect, "x" * 4097))).status == 400


async def test_1_3_topic_is_400_for_a_hub_of_1_0_alone_and_match_for_one_of_0_x() -> None:
    for dialect, protocol, query in [(V1, "1", "topic=a"), (V0, "0", "match=a")]:
        config = HttpConfig(dialects=frozenset({dialect}))
        async with mercure_hub(config, authorization={"protocol": protocol}) as there:
            assert (await there.ask(f"{HUB}?{query}")).status == 400


@both_dialects
@over_every_transport
async def test_1_3_equal_topics_show_an_event_once(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = await there.publish("a", "b")
        where = target(dialect, "a", "a", "b", "*", **{LAST_EVENT_ID[dialect]: "earliest"})
        assert await there.shown(where) == [sent]


@both_dialects
async def test_1_3_the_answer_is_an_event_stream_and_each_event_has_an_id(
    dialect: Dialect,
) -> None:
    async with mercure_hub() as there, there.open(target(dialect, "*")) as (response, one):
        headers = dict(response.headers)
        assert headers[b"content-type"] == STREAM
        assert b"no-store" in headers[b"cache-control"]
        assert headers[b"x-accel-buffering"] == b"no"
        sent = [await there.publish(topic, id=name) for topic, name in [("a", ""), ("b", "own")]]
        text = await one.read_until(sent[1])
        assert ids(text) == sent
        assert sent[1] == "own"
        assert sent[0].startswith("urn:uuid:")


@both_dialects
async def test_1_3_an_idle_stream_gets_comments(dialect: Dialect) -> None:
    where = target(dialect, "a")
    async with mercure_hub(heartbeat_s=0.02) as there, there.open(where) as (_, one):
        text = await one.read_until("\n:\n")
        assert events(text) == []


@promises.PRIVATE_ONLY_FOR_ALLOWED
@both_dialects
@over_every_transport
async def test_1_3_a_private_event_is_for_those_with_a_right_to_it(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        public = await there.publish("a")
        private = await there.publish("a", private="on")
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "earliest"})
        assert await there.shown(where) == [public]
        other, right = token(dialect, subscribe=["b"]), token(dialect, subscribe=["a"])
        assert await there.shown(where, bearer(other)) == [public]
        assert await there.shown(where, bearer(right)) == [public, private]
        async with there.open(target(dialect, "a")) as (_, live):
            await there.publish("a", private="")
            last = await there.publish("a")
            assert ids(await live.read_until(last)) == [last]


@both_dialects
async def test_1_3_a_hub_may_demand_a_token_of_everybody(dialect: Dialect) -> None:
    async with mercure_hub(authorization={"anonymous": False}) as there:
        assert (await there.ask(target(dialect, "a"))).status == 401
        async with there.open(target(dialect, "a"), bearer(token(dialect))) as (response, _):
            assert response.status_code == 200


async def test_1_3_a_query_adds_its_form_to_the_address() -> None:
    async with mercure_hub() as there:
        sent = [await there.publish(topic) for topic in ("a", "b", "/u/7", "c")]
        form = b"match=b&match_urlpattern=%2Fu%2F:id&last_event_id=earliest"
        shown = await there.shown(
            f"{HUB}?match=a", ("Content-Type", FORM), method="QUERY", body=form
        )
        assert shown == sent[:3]


async def test_1_3_the_cursor_of_a_query_is_that_of_header_then_address_then_form() -> None:
    async with mercure_hub() as there:
        sent = [await there.publish("a") for _ in range(4)]
        form = ("Content-Type", FORM)
        body = f"match=a&last_event_id={sent[0]}".encode()
        address = f"{HUB}?last_event_id={sent[1]}"
        header = ("Last-Event-ID", sent[2])
        assert await there.shown(HUB, form, method="QUERY", body=body) == sent[1:]
        assert await there.shown(address, form, method="QUERY", body=body) == sent[2:]
        assert await there.shown(address, form, header, method="QUERY", body=body) == sent[3:]


@pytest.mark.parametrize(
    ("content_type", "status"), [(None, 400), ("nonsense", 400), ("application/json", 415)]
)
async def test_1_11_a_query_without_a_form_is_rejected(
    content_type: str | None, status: int
) -> None:
    async with mercure_hub() as there:
        headers = [] if content_type is None else [("Content-Type", content_type)]
        answer = await there.ask(f"{HUB}?match=a", *headers, method="QUERY", body=b"match=a")
        assert answer.status == status


@pytest.mark.parametrize("method", ["GET", "QUERY"])
async def test_1_11_accept_that_excludes_event_streams_is_406(method: str) -> None:
    form = [("Content-Type", FORM)] if method == "QUERY" else []
    async with mercure_hub() as there:
        for accept, status in [
            ("application/json", 406),
            ("text/event-stream;q=0, */*", 406),
            ("*/*", 200),
            ("text/event-stream", 200),
            (None, 200),
        ]:
            headers = form if accept is None else [*form, ("Accept", accept)]
            async with there.open(f"{HUB}?match=a", *headers, method=method) as (response, _):
                assert response.status_code == status, accept


async def test_1_11_the_header_with_the_cursor_is_exposed_to_other_origins() -> None:
    async with mercure_hub(HttpConfig(cors_origins=("https://a.example",))) as there:
        origin = ("Origin", "https://a.example")
        for dialect in DIALECTS:
            where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "earliest"})
            async with there.open(where, origin) as (response, _):
                headers = dict(response.headers)
                exposed = headers[b"access-control-expose-headers"].lower().split(b", ")
                assert RESUMED_FROM[dialect] in exposed
                assert b"link" in exposed
