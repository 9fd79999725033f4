"""Mercure, publishing: one test for each rule."""

import re

import pytest

from noti.authorization.grant import Dialect
from noti.http.config import HttpConfig
from noti.http.forms import FORM
from tests import promises
from tests.http.mercure_stage import (
    DIALECTS,
    HUB,
    LAST_EVENT_ID,
    V0,
    V1,
    bearer,
    mercure_hub,
    over_every_transport,
    target,
    token,
)
from tests.http.stage import events, ids

both_dialects = pytest.mark.parametrize("dialect", DIALECTS)


def publisher(dialect: Dialect, *topics: str) -> str:
    return token(dialect, publish=topics or ["*"])


def replay(dialect: Dialect, *topics: str, after: str = "earliest") -> str:
    return target(dialect, *topics, **{LAST_EVENT_ID[dialect]: after})


@both_dialects
@over_every_transport
async def test_1_4_a_cursor_on_an_id_that_was_used_again_means_its_first_event(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        await there.publish("a", id="book", data="1")
        between = await there.publish("a", data="2")
        await there.publish("a", id="book", data="3")
        assert await there.shown(replay(dialect, "a", after="book")) == [between, "book"]


@both_dialects
async def test_1_6_the_answer_is_200_with_the_id_as_text_and_nothing_else(
    dialect: Dialect,
) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), ("id", "own"), by=publisher(dialect))
        assert (answer.status, answer.body) == (200, "own")
        assert answer.headers[b"content-type"] == b"text/plain; charset=utf-8"


@both_dialects
async def test_1_6_an_omitted_id_is_made_by_the_hub(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        for fields in ([], [("id", "")]):
            answer = await there.post(("topic", "a"), *fields, by=publisher(dialect))
            assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", answer.body)


@both_dialects
async def test_1_6_the_body_must_be_a_form(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        right = bearer(publisher(dialect))
        for content_type in ("application/json", "multipart/form-data; boundary=x", None):
            headers = [right] if content_type is None else [right, ("Content-Type", content_type)]
            answer = await there.ask(HUB, *headers, method="POST", body=b"topic=a")
            assert answer.status in (400, 415)


@both_dialects
async def test_1_6_the_form_must_be_utf_8(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        headers = [bearer(publisher(dialect)), ("Content-Type", FORM)]
        for body in (b"topic=a&data=%ff", b"topic=a&data=\xff"):
            assert (await there.ask(HUB, *headers, method="POST", body=body)).status == 400


@both_dialects
async def test_1_6_unknown_fields_are_ignored(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), ("target", "b"), by=publisher(dialect))
        assert answer.status == 200


@both_dialects
async def test_1_6_a_topic_is_needed(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("data", "x"), by=publisher(dialect))
        assert answer.status == 400
        assert 'Missing "topic" parameter' in answer.body


@both_dialects
@over_every_transport
async def test_1_6_whoever_follows_any_topic_gets_the_event_once(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = await there.publish("a", "b", "c")
        for topics in (["a"], ["b"], ["c", "a"], ["*", "b"]):
            shown = await there.shown(replay(dialect, *topics))
            assert (shown[0], shown.count(sent)) == (sent, 1)


@both_dialects
@over_every_transport
async def test_1_6_private_is_present_whatever_its_value(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        for value in ("on", "", "false", "0"):
            await there.post(("topic", "a"), ("private", value), by=publisher(dialect))
        assert await there.shown(replay(dialect, "a")) == []


@both_dialects
async def test_1_6_an_id_must_not_begin_with_a_number_sign(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), ("id", "#x"), by=publisher(dialect))
        assert answer.status == 400


@both_dialects
@pytest.mark.parametrize("field", ["id", "type"])
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x00b", "a\x7fb", "a\u0085b", "a\u200bb"])
async def test_1_6_id_and_type_have_no_control_characters(
    dialect: Dialect, field: str, text: str
) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), (field, text), by=publisher(dialect))
        assert answer.status == 400


@both_dialects
async def test_1_6_an_id_must_not_be_earliest(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), ("id", "earliest"), by=publisher(dialect))
        assert answer.status == 400


@both_dialects
@over_every_transport
async def test_1_6_ids_may_be_of_any_printable_text(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        for event_id in ("https://example.com/books/\u00e9", "\U0001f600", "two words"):
            assert await there.publish("a", id=event_id) == event_id
            after = await there.publish("a")
            assert await there.shown(replay(dialect, "a", after=event_id)) == [after]
            header = ("Last-Event-ID", event_id.encode().decode("latin-1"))
            async with there.open(target(dialect, "a"), header) as (response, one):
                assert ids(await one.read_until(after)) == [after]
                names = (b"last-event-id", b"mercure-last-event-id")
                [value] = [value for name, value in response.headers if name in names]
                assert value.decode() == event_id


@both_dialects
async def test_1_6_the_type_mercure_is_the_hubs_own(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), ("type", "mercure"), by=publisher(dialect))
        assert answer.status == 400


@both_dialects
@pytest.mark.parametrize("field", ["topic", "id", "type"])
async def test_1_6_a_field_over_its_limit_is_413(dialect: Dialect, field: str) -> None:
    async with mercure_hub() as there:
        fields = {"topic": "a", field: "x" * 1025}
        answer = await there.post(*fields.items(), by=publisher(dialect))
        assert answer.status == 413


@both_dialects
@pytest.mark.parametrize("retry", ["1.5", "-1", "a", "\u0661"])
async def test_1_6_retry_is_of_ascii_digits(dialect: Dialect, retry: str) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), ("retry", retry), by=publisher(dialect))
        assert answer.status == 400


@pytest.mark.parametrize(
    "topic",
    [
        "/.well-known/mercure",
        "/.well-known/mercure/subscriptions/a/b",
        "https://other.example/.well-known/mercure/subscriptions",
        "/.well-known/x/../mercure",
        "/%2Ewell-known/mercur%65",
    ],
)
async def test_1_6_topics_of_the_hub_are_refused_in_1_0(topic: str) -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), ("topic", topic), by=publisher(V1))
        assert answer.status == 400


async def test_1_6_topics_of_the_hub_are_refused_in_0_x() -> None:
    async with mercure_hub() as there:
        for topic in ("/.well-known/mercure/subscriptions/a/b", "https://x/.well-known/mercure"):
            answer = await there.post(("topic", "a"), ("topic", topic), by=publisher(V0))
            assert answer.status == 403


@both_dialects
async def test_1_6_up_to_a_thousand_topics_are_taken(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        topics = [("topic", f"t{number}") for number in range(1000)]
        assert (await there.post(*topics, by=publisher(dialect))).status == 200
        answer = await there.post(*topics, ("topic", "more"), by=publisher(dialect))
        assert answer.status == (400 if dialect is V0 else 413)


@both_dialects
async def test_1_6_a_body_over_the_limit_is_413(dialect: Dialect) -> None:
    config = HttpConfig(publish_body_bytes_max=4096)
    async with mercure_hub(config) as there:
        answer = await there.post(("topic", "a"), ("data", "x" * 5000), by=publisher(dialect))
        assert answer.status == 413


@both_dialects
@over_every_transport
async def test_1_6_a_publisher_needs_a_right_to_each_topic(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        by = publisher(dialect, "a")
        assert (await there.post(("topic", "a"), by=by)).status == 200
        answer = await there.post(("topic", "a"), ("topic", "b"), by=by)
        assert answer.status == 403
        if dialect is V1:
            assert b'error="insufficient_scope"' in answer.headers[b"www-authenticate"]
        assert len(await there.shown(replay(dialect, "a"))) == 1
        nothing = token(dialect, subscribe=["*"])
        assert (await there.post(("topic", "a"), by=nothing)).status == 403


@both_dialects
async def test_1_6_nobody_publishes_without_a_token(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        assert (await there.post(("topic", "a"), by="")).status == 401
        assert (await there.post(("topic", "a"), by="bad")).status == 401


@promises.RETRY_SHOWN_ONCE
@both_dialects
async def test_1_6_a_repeated_request_shows_an_event_once_and_a_new_version_again(
    dialect: Dialect,
) -> None:
    async with mercure_hub() as there:
        by = publisher(dialect)
        for data in ("1", "1", "2"):
            answer = await there.post(("topic", "a"), ("id", "x"), ("data", data), by=by)
            assert (answer.status, answer.body) == (200, "x")
        async with there.open(replay(dialect, "a")) as (_, one):
            await there.publish("a", id="end")
            shown = events(await one.read_until("id: end\ndata: \n\n"))
            assert [event["data"] for event in shown] == ["1", "2", ""]


@promises.RETRY_SHOWN_ONCE
@both_dialects
async def test_1_6_other_content_under_a_used_idempotency_key_is_422(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        key = ("Idempotency-Key", "k1")
        by = publisher(dialect)
        first = await there.post(("topic", "a"), ("data", "1"), by=by, headers=[key])
        again = await there.post(("topic", "a"), ("data", "1"), by=by, headers=[key])
        assert (again.status, again.body) == (200, first.body)
        other = await there.post(("topic", "a"), ("data", "2"), by=by, headers=[key])
        assert other.status == 422
