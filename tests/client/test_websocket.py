"""Following a stream over WebSocket: real nodes, plain and with TLS, and servers that are none."""

import ssl
from random import Random

import pytest
import trio
from prometheus_client import REGISTRY

from noti.client.event_source import read_stream
from noti.client.reconnection import Reconnection
from noti.client.websocket import is_websocket
from noti.errors import LocalError, Unavailable
from noti.http.config import HttpConfig
from noti.http.server import Frontend
from noti.streams.websocket_frames import ping
from tests.client.scripted import scripted
from tests.client.test_event_source import Recorder, watch
from tests.http.mercure_stage import V0, mercure_hub, target, token
from tests.http.stage import Node, anybody, hub, notifications, serving, until
from tests.http.tls_stage import shared_site

CATEGORY = "/category?lastEventID=earliest"


def url_of(address: tuple[str, int], path: str = CATEGORY, scheme: str = "ws") -> str:
    return f"{scheme}://localhost:{address[1]}{path}"


@pytest.mark.parametrize(
    ("url", "is_one"), [("ws://x/", True), ("wss://x", True), ("http://x", False), ("x", False)]
)
def test_scheme_says_what_is_a_websocket(url: str, is_one: bool) -> None:
    assert is_websocket(url) == is_one


async def test_stream_is_resumed_from_node_to_node_without_gap_or_duplicate() -> None:
    there = hub(retry_ms_min=1, retry_ms_max=2)
    there.publish(notifications(1, 3))
    recorder = Recorder(6)
    async with trio.open_nursery() as nursery:
        async with serving(there) as address:
            reconnection = Reconnection(url_of(address), Random(1))
            tls = ssl.create_default_context()
            nursery.start_soon(lambda: read_stream(reconnection, recorder, tls=tls))
            await until(lambda: len(recorder.events) == 3)
        again = hub(retry_ms_min=1, retry_ms_max=2)
        again.publish(notifications(1, 6))
        async with serving(again, port=address[1]):
            await until(lambda: len(recorder.events) == 6)
    assert [event.last_event_id for event in recorder.events] == [f"id-{n}" for n in range(1, 7)]
    assert recorder.pauses[0].why == "the stream ended (1001: drained)"
    assert recorder.opened_at[1] == "id-3"


async def test_stream_over_tls_is_the_same() -> None:
    site, there = shared_site(), hub()
    there.publish(notifications(1, 3))
    frontend = Frontend(
        ("127.0.0.1", 0), there, Node(), HttpConfig(), tls=site.tls, authorizer=anybody()
    )
    async with trio.open_nursery() as nursery:
        address = await nursery.start(frontend.run)
        url = url_of(address, scheme="wss")
        recorder = await watch(url, enough=3, tls=site.trusting("http/1.1"))
        assert len(recorder.events) == 3
        with pytest.raises(Unavailable, match="--tls-ca"):
            await watch(url)
        nursery.cancel_scope.cancel()


async def test_token_goes_in_a_header_and_a_bad_one_ends_the_attempt() -> None:
    async with mercure_hub(authorization={"anonymous": False}) as there:
        await there.publish("a", private="on")
        where = url_of(there.address, target(V0, "a", lastEventID="earliest"))
        good = ("Authorization", f"Bearer {token(V0, subscribe=['a'])}")
        assert len((await watch(where, enough=1, headers=[good])).events) == 1
        with pytest.raises(Unavailable, match="status 401"):
            await watch(where, headers=[("Authorization", "Bearer nonsense")])


async def test_node_without_room_is_tried_again() -> None:
    there = hub(clients_max=0, retry_ms_min=1, retry_ms_max=2)
    recorder = Recorder()
    async with serving(there) as address, trio.open_nursery() as nursery:
        reconnection = Reconnection(url_of(address), Random(1))
        tls = ssl.create_default_context()
        nursery.start_soon(lambda: read_stream(reconnection, recorder, tls=tls))
        await until(lambda: len(recorder.pauses) >= 2)
        nursery.cancel_scope.cancel()
    assert recorder.pauses[0].why.startswith("the stream ended (1013: this node has as many")


async def test_ping_is_a_sign_of_life() -> None:
    there, recorder = hub(heartbeat_s=0.2), Recorder(1)
    before = sent_bytes()
    async with serving(there) as address, trio.open_nursery() as nursery:
        reconnection = Reconnection(url_of(address), Random(1))
        tls = ssl.create_default_context()
        nursery.start_soon(lambda: read_stream(reconnection, recorder, tls=tls, silence_s_max=1.0))
        pings = 10 * len(ping())
        await until(lambda: sent_bytes() >= before + pings)
        there.publish(notifications(1, 1))
    assert [event.last_event_id for event in recorder.events] == ["id-1"]
    assert not recorder.pauses


def sent_bytes() -> float:
    return REGISTRY.get_sample_value("noti_streams_sent_bytes_total") or 0.0


async def test_silence_is_given_up() -> None:
    """A node whose next heartbeat is an hour away looks as one that is dead."""
    there, recorder = hub(heartbeat_s=3600.0), Recorder()
    async with serving(there) as address, trio.open_nursery() as nursery:
        reconnection = Reconnection(url_of(address), Random(1))
        tls = ssl.create_default_context()
        nursery.start_soon(lambda: read_stream(reconnection, recorder, tls=tls, silence_s_max=0.1))
        await until(lambda: bool(recorder.pauses))
        nursery.cancel_scope.cancel()
    assert recorder.pauses[0].why == "it was silent for 0.1 s"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nGone",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_other_answers_are_as_of_any_stream(answer: bytes) -> None:
    async with scripted(answer) as (_, url):
        address = url.replace("http", "ws")
        if b"204" in answer:
            assert not (await watch(address)).events
        else:
            with pytest.raises(Unavailable, match="404: Gone" if b"404" in answer else "no type"):
                await watch(address)


@pytest.mark.parametrize("failure", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n"])
async def test_failure_is_reported_and_tried_again(
    failure: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted(failure, b"HTTP/1.1 204 No Content\r\n\r\n") as (_, url):
        recorder = await watch(url.replace("http", "ws"))
    assert len(recorder.pauses) == 1
    assert recorder.pauses[0].why


async def test_header_that_cannot_be_sent_is_not_shown() -> None:
    with pytest.raises(LocalError) as raised:
        await watch("ws://127.0.0.1:1/", headers=[("Authorization", "Bearer secret\n")])
    assert "secret" not in str(raised.value)
