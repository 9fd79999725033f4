"""Promises of the HTTP side, over real loopback sockets."""

import json
import re
import time
from contextlib import AsyncExitStack
from ipaddress import ip_network

import pytest
import trio
import trio.testing
from prometheus_client import REGISTRY

from noti.history.commands import Publish, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.history.notification import Event
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from noti.http.config import HttpConfig
from noti.http.server import Frontend
from noti.http.subscribe import CATEGORY, Opening, StreamRequest
from noti.streams.feed import Batch
from tests import promises
from tests.http.stage import (
    LIMIT_S,
    Node,
    admission,
    client,
    events,
    hub,
    ids,
    notifications,
    running,
    serving,
    serving_operators,
    show,
    until,
)


async def test_a_stream_sends_its_first_bytes_at_once_with_the_headers_that_proxies_need() -> None:
    async with serving(hub()) as address, client(address) as one:
        browser = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)")
        response = await one.request("/.well-known/mercure?topic=*", [browser])
        headers = dict(response.headers)
        await one.read_until(": ok\nretry: ")
    assert response.status_code == 200
    assert headers[b"content-type"] == b"text/event-stream"
    assert b"no-transform" in headers[b"cache-control"]
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"last-event-id" not in headers


async def test_a_new_client_sees_only_what_comes_after_it() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    async with serving(there) as address, client(address) as one:
        await one.request("/.well-known/mercure?topic=*")
        await until(lambda: there.clients == 1)
        there.publish(notifications(4, 6))
        text = await one.read_until("id-6")
    assert ids(text) == ["id-4", "id-5", "id-6"]


async def test_a_new_client_may_ask_for_the_last_events_that_it_sees_and_a_cursor_wins() -> None:
    there = hub()
    there.publish(notifications(1, 3, topic="a"))
    there.publish(notifications(4, 6, topic="b"))
    async with serving(there) as address:
        for query, cursor, shown in (
            ("topic=a&last=2&cursor=1", "", ["id-2", "id-3"]),
            ("topic=a&last=2&cursor=1", "id-1", ["id-2", "id-3"]),
            ("topic=*&last=1", "id-3", ["id-4", "id-5", "id-6"]),
            ("topic=*&last=99999999", "", [f"id-{n}" for n in range(1, 7)]),
        ):
            async with client(address) as one:
                headers = [("Last-Event-ID", cursor)] if cursor else []
                await one.request(f"/.well-known/mercure?{query}", headers)
                text = await one.read_until(f"id: {shown[-1]}\n")
                assert [i for i in ids(text) if i.startswith("id-")] == shown
        for useless in ("", "0", "-1", "x", "%C2%B2", "9" * 5000):
            async with client(address) as one:
                await one.request(f"/.well-known/mercure?topic=c&cursor=1&last={useless}")
                assert "noti:6-" in await one.read_until("\n\n")


@promises.NOTHING_OF_UNREADABLE_EVENTS
async def test_a_client_that_asks_for_cursors_can_resume_before_it_saw_an_event() -> None:
    there = hub()
    there.publish(notifications(1, 3, topic="secret"))
    async with serving(there) as address, client(address) as one, client(address) as two:
        await one.request("/.well-known/mercure?topic=a&cursor=1")
        text = await one.read_until("\n\n")
        cursor = text.partition("id: ")[2].strip()
        assert "id-3" not in text, "an id of an event that this client may not see"
        there.publish(notifications(4, 4, topic="a"))
        there.publish(notifications(5, 6, topic="secret"))
        there.publish(notifications(7, 7, topic="a"))
        await two.request("/.well-known/mercure?topic=a", [("Last-Event-ID", cursor)])
        for reader in (one, two):
            text = await reader.read_until("id-7")
            shown = [event["id"] for event in events(text) if "data" in event]
            assert shown == ["id-4", "id-7"]
            for hidden in ("id-3", "id-5", "id-6", "secret"):
                assert hidden not in text, "a trace of an event that this client may not see"
    async with serving(hub()) as address, client(address) as one:
        await one.request("/.well-known/mercure?topic=*&cursor=1")
        assert "id: beginning\n\n" in await one.read_until("id: ")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("cursor", ["", "id-1"])
async def test_nothing_but_events_with_data_has_a_blank_line(
    version: str, cursor: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Some clients take each blank line for an event, and an empty one for broken JSON."""
    there = hub()
    there.publish(notifications(1, 3))
    async with trio.open_nursery() as nursery:
        address = await nursery.start(Frontend(("127.0.0.1", 0), there, Node(), HttpConfig()).run)
        async with await trio.open_tcp_stream(*address) as stream:
            head = f"GET /category HTTP/{version}\r\nHost: x\r\nLast-Event-ID: {cursor}\r\n\r\n"
            await stream.send_all(head.encode())
            received = await stream.receive_some()
            await trio.sleep(20)
            there.publish(notifications(4, 4))
            await trio.sleep(40)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                received += b"".join([part async for part in stream])
    body = received.partition(b"\r\n\r\n")[2].decode()
    if version == "1.1":
        body = "".join(re.sub(r"[0-9a-f]+\r\n(.*?)\r\n", r"\1", body, flags=re.DOTALL))
    assert body.count(":\n") >= 2, "it was silent long enough for heartbeats"
    *blocks, rest = body.split("\n\n")
    assert all("\ndata: " in block for block in blocks)
    assert "retry: " in rest
    assert "id: " not in rest


async def test_what_a_polyfill_adds_when_it_comes_back_wins_over_the_pages_own_name() -> None:
    there = hub()
    there.publish(notifications(1, 5))
    async with serving(there) as address, client(address) as one:
        await one.request("/.well-known/mercure?topic=*&lastEventID=id-1&lastEventId=id-4")
        assert ids(await one.read_until("id-5")) == ["id-5"]


async def test_the_category_stream_shows_the_promised_line() -> None:
    there = hub()
    async with serving(there) as address, client(address) as one:
        await one.request("/category")
        await until(lambda: there.clients == 1)
        there.publish(notifications(1, 1))
        text = await one.read_until("id-1")
    assert events(text)[0]["data"] == "UserID: 1 Category: a MatchCategory: b"


async def test_topics_select_and_may_be_repeated() -> None:
    there = hub()
    async with serving(there) as address, client(address) as one:
        await one.request("/.well-known/mercure?topic=a&topic=c")
        await until(lambda: there.clients == 1)
        for seq, topic in enumerate(["a", "b", "c", "d", "a"], start=1):
            there.publish(notifications(seq, seq, topic))
        text = await one.read_until("id-5")
    assert ids(text) == ["id-1", "id-3", "id-5"]


@promises.RESUMED_WITHOUT_GAP
@pytest.mark.parametrize(
    "place",
    ["header", "lastEventID", "last_event_id", "lastEventId", "evs_last_event_id", "Last-Event-ID"],
)
async def test_resuming_has_no_gap_and_no_duplicate_at_the_seam(place: str) -> None:
    there = hub()
    there.publish(notifications(1, 50))
    async with serving(there) as address, client(address) as one:
        if place == "header":
            headers = [("Last-Event-ID", "id-20")]
            # The header wins: the address is stale when a browser reconnects.
            response = await one.request("/.well-known/mercure?topic=*&lastEventID=id-3", headers)
        else:
            response = await one.request(f"/.well-known/mercure?topic=*&{place}=id-20")
        there.publish(notifications(51, 60))
        text = await one.read_until("id-60")
    assert dict(response.headers)[b"last-event-id"] == b"id-20"
    assert ids(text) == [f"id-{seq}" for seq in range(21, 61)]


async def test_earliest_replays_all_history_without_talk_of_a_gap() -> None:
    there = hub()
    there.publish(notifications(1, 5))
    async with serving(there) as address, client(address) as one:
        response = await one.request("/.well-known/mercure?topic=*&lastEventID=earliest")
        text = await one.read_until("id-5")
    assert dict(response.headers)[b"last-event-id"] == b"earliest"
    assert "noti-gap" not in text
    assert ids(text) == [f"id-{seq}" for seq in range(1, 6)]


async def test_who_asks_for_the_edge_of_history_begins_where_it_is_at_the_first_read() -> None:
    """Events go out of history between the decision and the first read."""
    there = hub()
    show(there, 1, 5, history_size=3)
    way_in = admission(there, Node(), HttpConfig())
    async with running(there):
        for asked in ["earliest", "id-1"]:
            request = StreamRequest(CATEGORY, f"lastEventID={asked}", lambda _: "", "127.0.0.1")
            opening = way_in.decide(request, caught_up=True)
            assert isinstance(opening, Opening)
            newest_seq = there.feed.newest_seq
            show(there, newest_seq + 1, newest_seq + 4, history_size=3)
            reader = opening.reader
            batch = there.feed.read(reader.audience, reader.after_seq, 1 << 20)
            assert isinstance(batch, Batch)
            assert batch.events == 3


@promises.RESUMED_WITHOUT_GAP
async def test_an_unknown_cursor_gets_all_history_and_a_gap_event() -> None:
    there = hub()
    show(there, 1, 5, history_size=3)
    async with serving(there) as address, client(address) as one:
        response = await one.request("/category", [("Last-Event-ID", "id-1")])
        text = await one.read_until("id-5")
    assert dict(response.headers)[b"last-event-id"] == b"earliest"
    gap, *rest = events(text)
    assert gap["event"] == "noti-gap"
    assert json.loads(gap["data"]) == {"requested": "id-1", "resumed": "earliest"}
    assert [event["id"] for event in rest] == ["id-3", "id-4", "id-5"]


async def test_a_subscription_without_a_topic_is_answered_with_what_to_do() -> None:
    async with serving(hub()) as address, client(address) as one:
        response = await one.request("/.well-known/mercure")
        text = await one.read_all()
    assert response.status_code == 400
    assert "?topic=*" in text


@pytest.mark.parametrize("query", ["topic=", "topic=" + "x" * 4097, "topic=%00", "topic=a&" * 101])
async def test_topics_have_limits(query: str) -> None:
    async with serving(hub()) as address, client(address) as one:
        response = await one.request(f"/.well-known/mercure?{query}")
        text = await one.read_all()
    assert response.status_code == 400
    assert "topic" in text


async def test_an_unknown_address_is_answered_with_where_to_go_and_a_wrong_method_with_allow() -> (
    None
):
    async with serving(hub()) as address, client(address) as one:
        response = await one.request("/nothing")
        assert response.status_code == 404
        text = await one.read_all()
        assert "/category" in text
        assert "/status and /metrics are at --ops-addr" in text
    async with serving(hub()) as address, client(address) as one:
        response = await one.request("/.well-known/mercure", method="POST")
        assert response.status_code == 405
        assert b"GET" in dict(response.headers)[b"allow"]
        assert "does not answer POST" in await one.read_all()


async def test_head_gets_a_streams_headers_and_no_stream() -> None:
    there = hub()
    async with serving(there) as address, client(address) as one:
        response = await one.request("/.well-known/mercure?topic=*", method="HEAD")
        assert response.status_code == 200
        assert dict(response.headers)[b"content-type"] == b"text/event-stream"
        assert await one.read_all() == ""
    assert there.clients == 0


async def test_a_node_without_room_sends_a_client_away_in_a_way_that_makes_it_come_back() -> None:
    there = hub(clients_max=1)
    async with serving(there) as address, client(address) as one, client(address) as two:
        await one.request("/category")
        await until(lambda: there.clients == 1)
        response = await two.request("/category", [("Accept", "text/event-stream")])
        text = await two.read_all()
    assert response.status_code == 200
    assert "retry: " in text


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_program_that_finds_no_room_sees_it_by_its_status(method: str) -> None:
    """HEAD goes the ordinary way, GET the short one."""
    there = hub(clients_per_address_max=1)
    async with serving(there) as address, client(address) as one, client(address) as two:
        await one.request("/category")
        await until(lambda: there.clients == 1)
        response = await two.request("/.well-known/mercure?topic=a", method=method)
    assert response.status_code == 429
    assert dict(response.headers)[b"retry-after"] == b"2"


async def test_clients_are_counted_by_the_address_that_a_trusted_proxy_names() -> None:
    there = hub(clients_per_address_max=1)
    config = HttpConfig(trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with serving(there, config=config) as address, AsyncExitStack() as clients:
        for forwarded_for, status in [
            ("1.1.1.1, 2.2.2.2", 200),
            ("2.2.2.2", 429),
            ("3.3.3.3", 200),
        ]:
            one = await clients.enter_async_context(client(address))
            response = await one.request("/category", [("X-Forwarded-For", forwarded_for)])
            assert response.status_code == status


async def test_a_node_that_is_not_ready_shows_nothing_and_makes_clients_come_back() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    async with serving(there, Node(is_ready=False)) as address, client(address) as one:
        response = await one.request("/category", [("Last-Event-ID", "id-99")])
        text = await one.read_all()
    assert response.status_code == 200
    assert "retry: " in text
    assert events(text) == []


async def test_a_client_that_is_ahead_of_this_node_gets_no_gap_event() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    node = Node(on_barrier=lambda: there.publish(notifications(4, 6)))
    async with serving(there, node) as address, client(address) as one:
        response = await one.request("/category", [("Last-Event-ID", "id-5")])
        text = await one.read_until("id-6")
    assert dict(response.headers)[b"last-event-id"] == b"id-5"
    assert ids(text) == ["id-6"]


async def test_a_known_cursor_does_not_wait_for_the_leader() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    node = Node()
    async with serving(there, node) as address, client(address) as one:
        await one.request("/category", [("Last-Event-ID", "id-2")])
        await one.read_until("id-3")
    assert node.barriers == 0


async def test_a_node_that_cannot_catch_up_sends_its_clients_away_without_a_gap() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    hurry = HttpConfig(catch_up_wait_s=0.05)
    node = Node(is_ready=False)
    async with serving(there, node, config=hurry) as address, client(address) as one:
        response = await one.request("/category", [("Last-Event-ID", "id-9")])
        text = await one.read_all()
    assert response.status_code == 200, "any other status makes an EventSource give up for ever"
    assert "retry:" in text
    assert "noti-gap" not in text
    assert ids(text) == []


async def test_other_origins_are_allowed_only_when_they_are_named() -> None:
    allowed = HttpConfig(cors_origins=("https://a.example",))
    for config, origin, expected in [
        (HttpConfig(), "https://a.example", None),
        (allowed, "https://a.example", b"https://a.example"),
        (allowed, "https://b.example", None),
        (HttpConfig(cors_origins=("*",)), "https://b.example", b"*"),
    ]:
        async with serving(hub(), config=config) as address, client(address) as one:
            response = await one.request("/category", [("Origin", origin)])
        headers = dict(response.headers)
        assert headers.get(b"access-control-allow-origin") == expected
        with_cookies = headers.get(b"access-control-allow-credentials")
        assert with_cookies == (b"true" if expected == origin.encode() else None)


async def test_the_page_and_what_it_needs_are_served() -> None:
    async with serving(hub()) as address, client(address) as one:
        for target, kind in [
            ("/", b"text/html; charset=utf-8"),
            ("/noti.js", b"text/javascript; charset=utf-8"),
            ("/page.css", b"text/css; charset=utf-8"),
            ("/page.js", b"text/javascript; charset=utf-8"),
        ]:
            response = await one.request(target)
            assert response.status_code == 200
            assert dict(response.headers)[b"content-type"] == kind
            assert len(await one.read_all()) > 100


async def test_metrics_count_clients() -> None:
    there = hub()
    async with serving(there) as address, client(address) as one, serving_operators() as ops:
        await one.request("/category")
        await until(lambda: there.clients == 1)
        async with client(ops) as prometheus:
            await prometheus.request("/metrics")
            text = await prometheus.read_all()
    assert "noti_streams_clients 1.0" in text
    assert "noti_streams_clients_max 50000.0" in text
    assert "noti_streams_backlog_bytes 0.0" in text
    assert "noti_streams_backlog_bytes_max 6.7108864e+07" in text
    assert "noti_streams_pressure 0.0" in text
    assert 'noti_streams_clients_closed_total{reason="overrun"}' in text


async def test_metrics_report_how_old_events_are_once_for_each_pass_and_not_for_repeats() -> None:
    def observed(name: str) -> float:
        return REGISTRY.get_sample_value(f"noti_streams_event_age_seconds_{name}") or 0.0

    there = hub()
    before = observed("count"), observed("sum")
    there.publish(notifications(1, 3))
    async with serving(there) as address, client(address) as one, client(address) as two:
        await one.request("/category")
        await two.request("/category?lastEventID=earliest")
        await two.read_until("id-3")
        await until(lambda: there.clients == 2 and not there._sending.sendable)
        ago_ms = int((time.time() - 2) * 1000)
        there.publish([one._replace(created_ms=ago_ms) for one in notifications(4, 6)])
        for reader in (one, two):
            await reader.read_until("id-6")
        await until(lambda: observed("count") == before[0] + 1)
    assert 2.0 <= observed("sum") - before[1] < 2.0 + LIMIT_S


@promises.QUIET_TOPIC_KEPT
async def test_reader_of_a_quiet_topic_resumes_without_a_gap_beside_a_loud_one() -> None:
    there = hub()
    store = Store()
    there.feed.lost_through = store.lost_through
    history = HistoryStateMachine(store, there)
    history.apply(encode(SetLimits(HistoryLimits(count=10, per_topic=3))))

    def publish(topic: str, *ids: str) -> None:
        history.apply(encode(Publish(tuple(Event(0, one, (topic,), one, 1) for one in ids))))

    publish("quiet", "q1", "q2", "q3")
    publish("loud", *(f"l{number}" for number in range(50)))
    async with serving(there) as address:
        async with client(address) as reader:
            await reader.request("/.well-known/mercure?topic=quiet&lastEventID=q1")
            assert ids(await reader.read_until("q3\n\n")) == ["q2", "q3"]
            assert "noti-gap" not in reader.text
        async with client(address) as reader:
            await reader.request("/.well-known/mercure?topic=*&lastEventID=q1")
            text = await reader.read_until("l49\n\n")
            assert "noti-gap" in text, "of other topics, events between are lost"
            assert ids(text) == ["q1", "q2", "q3", *(f"l{number}" for number in range(40, 50))]
        publish("quiet", "q4", "q5")
        async with client(address) as reader:
            await reader.request("/.well-known/mercure?topic=quiet&lastEventID=q1")
            assert "noti-gap" in await reader.read_until("q5\n\n"), "q1 has left, and so did q2"
