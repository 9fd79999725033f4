"""Streams over WebSocket: what a client gets, says, and is closed with; plain and over TLS."""

import json
from typing import Any

import pytest
import trio
from wsproto.events import Ping

from noti.http.config import HttpConfig
from noti.http.server import Frontend
from tests.http.mercure_stage import (
    DIALECTS,
    HUB,
    LAST_EVENT_ID,
    V0,
    bearer,
    mercure_hub,
    target,
    token,
)
from tests.http.stage import Node, anybody, hub, notifications, serving, until
from tests.http.tls_stage import shared_site
from tests.http.websocket_stage import (
    HANDSHAKE,
    Speaker,
    messages_until_closed,
    next_event,
    web_socket,
)
from tests.streams.websocket_cases import CASES, Case
from tests.streams.websocket_clients import PING, TEXT, close_with, masked

ANY = f"{HUB}?topic=*"


async def test_event_is_an_object_in_a_message_of_its_own() -> None:
    async with mercure_hub() as there, web_socket(there.address, target(V0, "a")) as opened:
        event_id = await there.publish("a", data="hello\nworld", type="greeting", retry="1500")
        assert json.loads(await opened.get_message()) == {
            "id": event_id,
            "type": "greeting",
            "topics": ["a"],
            "data": "hello\nworld",
            "retry": 1500,
        }


async def test_event_is_the_text_of_an_event_stream_for_who_wants_that() -> None:
    async with (
        mercure_hub() as there,
        web_socket(there.address, target(V0, "a"), subprotocols=["sse"]) as opened,
    ):
        assert opened.subprotocol == "sse"
        event_id = await there.publish("a", data="hello")
        assert await opened.get_message() == f"id: {event_id}\ndata: hello\n\n"


async def test_category_is_there_too() -> None:
    there = hub()
    async with serving(there) as address, web_socket(address, "/category") as opened:
        assert "retry" in json.loads(await opened.get_message())
        there.publish(notifications(1, 1))
        event = await next_event(opened)
        assert event["data"] == "UserID: 1 Category: a MatchCategory: b"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_client_resumes_without_gap_or_duplicate(dialect: Any) -> None:
    async with mercure_hub() as there:
        sent = [await there.publish("a") for _ in range(5)]
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: sent[1]})
        async with web_socket(there.address, where) as opened:
            sent.append(await there.publish("a"))
            seen = [(await next_event(opened))["id"] for _ in range(4)]
            assert seen == sent[2:]


async def test_gap_is_told() -> None:
    async with mercure_hub() as there:
        await there.publish("a")
        where = target(V0, "a", lastEventID="unknown")
        async with web_socket(there.address, where) as opened:
            gap = await next_event(opened)
            assert (gap["type"], gap["id"]) == ("noti-gap", "earliest")
            assert "unknown" in json.dumps(gap["data"])


async def test_heartbeat_is_a_ping() -> None:
    async with (
        mercure_hub(heartbeat_s=0.1) as there,
        Speaker.open(there.address, ANY) as speaker,
    ):
        assert isinstance(await speaker.hear(), Ping)


async def test_node_that_shuts_down_says_so() -> None:
    async with mercure_hub() as there, web_socket(there.address, ANY) as opened:
        there.hub.drain()
        messages, code, reason = await messages_until_closed(opened)
        assert "retry" in json.loads(messages[-1])
        assert (code, reason) == (1001, "drained")


async def test_stream_has_a_lifetime() -> None:
    async with mercure_hub(lifetime_s=0.2) as there, web_socket(there.address, ANY) as opened:
        assert (await messages_until_closed(opened))[1:] == (1001, "aged")


async def test_streams_of_one_address_are_counted_whatever_carries_them() -> None:
    async with mercure_hub(clients_per_address_max=1) as there:
        async with there.open(ANY), web_socket(there.address, ANY) as turned_away:
            _, code, reason = await messages_until_closed(turned_away)
            assert (code, reason) == (1013, "your address has as many streams as one may have")
        await until(lambda: there.hub.clients == 0)
        async with web_socket(there.address, ANY) as opened:
            await there.publish("a")
            assert await next_event(opened)


async def test_client_for_whom_there_is_no_room_is_told_why_and_when_to_come_back() -> None:
    async with (
        mercure_hub(clients_max=1) as there,
        web_socket(there.address, ANY),
        web_socket(there.address, ANY) as turned_away,
    ):
        messages, code, reason = await messages_until_closed(turned_away)
        assert [*json.loads(messages[0])] == ["retry"]
        assert (code, reason) == (1013, "this node has as many streams as it may have")


async def test_client_of_a_node_that_does_not_catch_up_is_told_to_come_back() -> None:
    config = HttpConfig(catch_up_wait_s=0.05)
    async with (
        serving(hub(), Node(is_ready=False), config) as address,
        web_socket(address, ANY) as opened,
    ):
        assert (await messages_until_closed(opened))[1] == 1013


# Tokens


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_token_may_be_a_subprotocol(dialect: Any) -> None:
    """A page can set no header."""
    text = token(dialect, subscribe=["a"])
    offered = ["noti", f"authorization.bearer.{text}"]
    async with (
        mercure_hub(authorization={"anonymous": False}) as there,
        web_socket(there.address, target(dialect, "a"), subprotocols=offered) as opened,
    ):
        assert opened.subprotocol == "noti"
        event_id = await there.publish("a", private="on")
        assert (await next_event(opened))["id"] == event_id


async def test_token_may_be_in_the_query_of_0_x_and_in_a_header() -> None:
    text = token(V0, subscribe=["*"])
    async with mercure_hub(authorization={"anonymous": False}) as there:
        async with web_socket(there.address, target(V0, "a", authorization=text)):
            pass
        async with web_socket(there.address, ANY, bearer(text)):
            pass


async def test_client_without_a_token_is_answered_as_any_other() -> None:
    async with mercure_hub(authorization={"anonymous": False}) as there:
        for given, status in [([], 401), ([bearer("nonsense")], 401)]:
            async with Speaker.open(there.address, ANY, [*HANDSHAKE, *given]) as speaker:
                assert speaker.status == status
        async with Speaker.open(there.address, HUB) as speaker:
            assert speaker.status == 401
    async with mercure_hub() as there, Speaker.open(there.address, HUB) as speaker:
        assert speaker.status == 400
        assert speaker.body.startswith(b'Missing "topic" parameter.')


async def test_cookie_counts_for_pages_of_the_hub_alone() -> None:
    """Cross-site WebSocket hijacking: the cookie comes along, whoever's page it is."""
    cookie = ("cookie", f"mercureAuthorization={token(V0, subscribe=['*'])}")
    own, other = ("origin", "http://localhost"), ("origin", "http://evil.example")
    async with mercure_hub(authorization={"anonymous": False}) as there:
        for origin, status in [([own], 101), ([other], 403), ([], 401)]:
            async with Speaker.open(there.address, ANY, [*HANDSHAKE, *origin, cookie]) as speaker:
                assert speaker.status == status


async def test_stream_ends_when_its_token_does() -> None:
    text = token(V0, subscribe=["*"], lasts_s=1.5)
    async with mercure_hub() as there, web_socket(there.address, ANY, bearer(text)) as opened:
        assert (await messages_until_closed(opened))[1:] == (1008, "expired")


async def test_stream_of_a_subject_is_ended_when_an_operator_says_so() -> None:
    text = token(V0, subscribe=["*"], sub="alice")
    async with mercure_hub() as there, web_socket(there.address, ANY, bearer(text)) as opened:
        assert there.hub.disconnect(subject="alice") == 1
        assert (await messages_until_closed(opened))[1:] == (1008, "revoked")


# What clients say


CONTINUED = [case for case in CASES if case.whole and len(case.said) < 10_000]


@pytest.mark.parametrize("case", CONTINUED, ids=lambda case: case.name)
async def test_client_is_answered_by_a_node_as_the_protocol_has_it(case: Case) -> None:
    """What `test_websocket_reader.py` promises of the reader, over a connection."""
    async with serving(hub()) as address, Speaker.open(address, ANY) as speaker:
        await speaker.say(case.said)
        for pong in case.pongs:
            assert await speaker.hear_pong() == pong
        if case.close is None:
            await speaker.say(masked(PING, b"and on"))
            assert await speaker.hear_pong() == b"and on"
        else:
            assert (await speaker.hear_close())[0] == case.close


async def test_frames_before_the_answer_are_refused() -> None:
    async with (
        serving(hub()) as address,
        Speaker.open(address, ANY, behind=masked(PING)) as speaker,
    ):
        assert speaker.status == 400


async def test_other_addresses_open_no_websocket() -> None:
    async with serving(hub()) as address, Speaker.open(address, "/") as speaker:
        assert speaker.status == 501


# TLS


async def test_websocket_over_tls_is_the_same() -> None:
    site = shared_site()
    there = hub(heartbeat_s=0.2)
    frontend = Frontend(
        ("127.0.0.1", 0), there, Node(), HttpConfig(), tls=site.tls, authorizer=anybody()
    )
    trusting = site.trusting("http/1.1")
    async with trio.open_nursery() as nursery:
        address = await nursery.start(frontend.run)
        async with web_socket(address, ANY, tls=trusting) as opened:
            there.publish(notifications(1, 3))
            assert [(await next_event(opened))["id"] for _ in range(3)] == ["id-1", "id-2", "id-3"]
            await opened.ping(b"a")
        async with Speaker.open(address, ANY, tls=trusting) as speaker:
            for said in (masked(PING, b"a") * 2000, masked(TEXT, b"b" * 5000)):
                await speaker.say(said)
            assert await speaker.hear_pong() == b"a"
            await speaker.say(close_with(4000, b"bye"))
            assert (await speaker.hear_close())[0] == 4000
        async with web_socket(address, ANY, tls=trusting) as opened:
            there.drain()
            assert (await messages_until_closed(opened))[1:] == (1001, "drained")
        nursery.cancel_scope.cancel()
