"""Mercure, replay and the format of events: one test for each rule."""

import pytest

from noti.authorization.grant import Dialect
from tests import promises
from tests.http.mercure_stage import (
    DIALECTS,
    HUB,
    LAST_EVENT_ID,
    RESUMED_FROM,
    V0,
    V1,
    MercureHub,
    bearer,
    mercure_hub,
    over_every_transport,
    target,
    token,
)
from tests.http.stage import events, ids

both_dialects = pytest.mark.parametrize("dialect", DIALECTS)


async def resumed_from(
    there: MercureHub, dialect: Dialect, to: str, *headers: tuple[str, str]
) -> str | None:
    """Return what the answer says, after which event it begins; None when it says nothing."""
    async with there.open(to, *headers) as (response, _):
        assert response.status_code == 200
        (other,) = set(RESUMED_FROM.values()) - {RESUMED_FROM[dialect]}
        found = dict(response.headers)
        assert other not in found
        value = found.get(RESUMED_FROM[dialect])
        return None if value is None else value.decode()


@both_dialects
@over_every_transport
async def test_1_4_header_wins_over_query_parameter(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = [await there.publish("a") for _ in range(3)]
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: sent[0]})
        header = ("Last-Event-ID", sent[1])
        assert await there.shown(where, header) == sent[2:]
        assert await resumed_from(there, dialect, where, header) == sent[1]


@pytest.mark.parametrize("name", ["lastEventID", "Last-Event-ID", "last_event_id", "lastEventId"])
@over_every_transport
async def test_1_4_the_query_parameter_is_known_by_all_its_names(
    name: str, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = [await there.publish("a") for _ in range(3)]
        for dialect in DIALECTS:
            assert await there.shown(target(dialect, "a", **{name: sent[0]})) == sent[1:]


@over_every_transport
async def test_1_4_symfonys_two_parameters_go_together(subprotocol: str | None) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = [await there.publish("a") for _ in range(3)]
        both = {"lastEventID": sent[1], "Last-Event-ID": sent[1]}
        assert await there.shown(target(V0, "a", **both)) == sent[2:]


@both_dialects
async def test_1_4_everything_after_the_cursor_is_sent_then_what_comes(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        sent = [await there.publish("a") for _ in range(5)]
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: sent[1]})
        async with there.open(where) as (_, one):
            sent += [await there.publish("a") for _ in range(5)]
            assert ids(await one.read_until(sent[-1])) == sent[2:]


@promises.PRIVATE_ONLY_FOR_ALLOWED
@both_dialects
@over_every_transport
async def test_1_4_replay_is_checked_against_the_current_token(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        first = await there.publish("a")
        private = await there.publish("a", private="on")
        where = target(dialect, "a")
        resume = ("Last-Event-ID", first)
        right, none = token(dialect, subscribe=["a"]), token(dialect)
        assert await there.shown(where, resume, bearer(right)) == [private]
        assert await there.shown(where, resume, bearer(none)) == []
        assert await there.shown(where, resume) == []


@both_dialects
@over_every_transport
async def test_1_4_earliest_is_everything_that_the_hub_has(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = [await there.publish("a") for _ in range(3)]
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "earliest"})
        assert await there.shown(where) == sent
        assert await resumed_from(there, dialect, where) == "earliest"


@both_dialects
async def test_1_4_the_answer_says_after_which_event_it_begins(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        sent = [await there.publish("a") for _ in range(3)]
        for cursor, answered in [(sent[1], sent[1]), ("unknown", "earliest")]:
            where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: cursor})
            assert await resumed_from(there, dialect, where) == answered
            header = ("Last-Event-ID", cursor)
            assert await resumed_from(there, dialect, target(dialect, "a"), header) == answered
        assert await resumed_from(there, dialect, target(dialect, "a")) is None


@both_dialects
async def test_1_4_an_empty_history_begins_with_earliest(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        for cursor in ("earliest", "unknown"):
            where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: cursor})
            assert await resumed_from(there, dialect, where) == "earliest"


@over_every_transport
async def test_1_4_an_empty_parameter_is_answered_too_in_1_0(subprotocol: str | None) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        await there.publish("a")
        assert await resumed_from(there, V1, target(V1, "a", last_event_id="")) == "earliest"
        assert await there.shown(target(V1, "a", last_event_id="")) == []
        assert await resumed_from(there, V0, target(V0, "a", lastEventID="")) is None


@both_dialects
async def test_1_4_an_unknown_cursor_gets_all_that_is_kept_and_is_told_of_the_gap(
    dialect: Dialect,
) -> None:
    async with mercure_hub() as there:
        sent = [await there.publish("a") for _ in range(3)]
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "unknown"})
        async with there.open(where) as (_, one):
            gap, *rest = events(await one.read_until(sent[-1]))
            assert gap["event"] == "noti-gap"
            assert [event["id"] for event in rest] == sent


@both_dialects
@over_every_transport
async def test_1_4_ids_are_of_the_hub_not_of_a_topic(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = [await there.publish(topic) for topic in ("a", "b", "a", "b")]
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: sent[1]})
        assert await there.shown(where) == [sent[2]]


@both_dialects
async def test_1_4_the_answer_names_no_id_that_the_reader_did_not_ask_for(
    dialect: Dialect,
) -> None:
    async with mercure_hub() as there:
        hidden = await there.publish("a", private="on")
        for query in [{}, {"cursor": "1"}, {"last": "5"}, {LAST_EVENT_ID[dialect]: "x"}]:
            async with there.open(target(dialect, "a", **query)) as (response, one):
                last = await there.publish("a")
                text = await one.read_until(last)
                assert hidden not in text
                assert hidden.encode() not in b"".join(value for _, value in response.headers)


@both_dialects
async def test_1_5_an_event_is_written_as_event_retry_id_data(dialect: Dialect) -> None:
    async with mercure_hub() as there, there.open(target(dialect, "a")) as (_, one):
        await there.publish("a", data="x", id="i", type="t", retry="1500")
        await there.publish("a", data="y", id="j", retry="0")
        text = await one.read_until("data: y\n\n")
        assert "event: t\nretry: 1500\nid: i\ndata: x\n\nid: j\ndata: y\n\n" in text


@both_dialects
async def test_1_5_an_event_without_retry_has_none_even_the_first(dialect: Dialect) -> None:
    async with mercure_hub() as there, there.open(target(dialect, "a")) as (_, one):
        await there.publish("a", data="x", id="i")
        text = await one.read_until("data: x\n\n")
        assert "retry" not in text


@both_dialects
async def test_1_5_data_are_split_at_cr_lf_and_crlf(dialect: Dialect) -> None:
    async with mercure_hub() as there, there.open(target(dialect, "a")) as (_, one):
        await there.publish("a", data="1\r2\n3\r\n4\n\nid: forged", id="i")
        text = await one.read_until("forged\n\n")
        assert "id: i\ndata: 1\ndata: 2\ndata: 3\ndata: 4\ndata: \ndata: id: forged\n\n" in text
        assert ids(text) == ["i"]


@both_dialects
async def test_1_5_an_event_without_data_has_an_empty_data_line(dialect: Dialect) -> None:
    async with mercure_hub() as there, there.open(target(dialect, "a")) as (_, one):
        await there.publish("a", id="i")
        assert "id: i\ndata: \n\n" in await one.read_until("data: \n\n")


@both_dialects
async def test_1_5_text_comes_back_unchanged(dialect: Dialect) -> None:
    text = "\u00e9 \U0001f600 \u2028 <b>&amp;%41+"
    async with mercure_hub() as there, there.open(target(dialect, "\u00e9")) as (_, one):
        await there.publish("\u00e9", data=text, id="i", type="\u00fc")
        assert f"event: \u00fc\nid: i\ndata: {text}\n\n" in await one.read_until("&amp;%41+\n\n")


async def test_1_5_a_stream_begins_with_a_comment_at_once() -> None:
    async with mercure_hub() as there, there.open(f"{HUB}?topic=a") as (_, one):
        assert (await one.read_until("\n")).startswith(":")
