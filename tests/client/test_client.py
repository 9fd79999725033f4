"""Publishing and following for applications, against servers that answer as they are told."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import NoReturn
from urllib.parse import parse_qsl

import httpx
import pytest
import trio

from noti.client import Client, StreamEvent
from noti.errors import LocalError, ProposalUncertain, RequestRejected, Unavailable
from tests import promises
from tests.certificates.authority import Wanted, authority, issue
from tests.certificates.bad import peer_context
from tests.client.scripted import Script, over_tls, scripted

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 1\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def answer(status: int, text: str = "", *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(text.encode())}",
        "Connection: close",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + text).encode()


def hub_of(url: str) -> str:
    """Return a server's root, as applications write it."""
    return url.removesuffix("/events")


def headers_of(request: str) -> dict[str, str]:
    lines = request.partition("\r\n\r\n")[0].split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def keys_of(*scripts: Script) -> set[str]:
    return {
        headers_of(request)["idempotency-key"] for script in scripts for request in script.requests
    }


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Yield the address of a server that takes a request, and says nothing."""

    async def take(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, take, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def closed_port() -> str:
    """Return an address at which nobody listens."""
    async with scripted() as (_, url):
        pass
    return hub_of(url)


async def test_an_event_is_published_with_all_its_fields() -> None:
    async with (
        scripted(answer(200, "ü-1")) as (script, url),
        Client(hub_of(url), token="t") as client,
    ):
        event_id = await client.publish(
            ["a", "b"], "x&y=ü\n", id="ü-1", type="note", private=True, retry_ms=7
        )
    head, _, body = script.requests[0].partition("\r\n\r\n")
    assert head.startswith("POST /.well-known/mercure HTTP/1.1\r\n")
    assert headers_of(script.requests[0])["authorization"] == "Bearer t"
    assert parse_qsl(body) == [
        ("topic", "a"),
        ("topic", "b"),
        ("data", "x&y=ü\n"),
        ("id", "ü-1"),
        ("type", "note"),
        ("private", "on"),
        ("retry", "7"),
    ]
    assert event_id == "ü-1"


@promises.RETRY_SHOWN_ONCE
async def test_an_event_goes_to_the_next_node_under_the_same_key() -> None:
    dead = await closed_port()
    async with (
        scripted(answer(503, "no leader", "Retry-After: 0")) as (busy, one),
        scripted(b"") as (hanging_up, two),
        scripted(answer(200, "id-1"), answer(200, "id-2")) as (good, three),
        Client([dead, *map(hub_of, (one, two, three))]) as client,
    ):
        assert await client.publish("a") == "id-1"
        # It stays with the node that answered; another event has another key.
        assert await client.publish("a") == "id-2"
    first, second = (headers_of(request)["idempotency-key"] for request in good.requests)
    assert keys_of(busy, hanging_up) == {first}
    assert second != first


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422])
async def test_an_event_that_will_never_be_taken_is_not_tried_again(status: int) -> None:
    async with (
        scripted(answer(status, "Say why.\n")) as (_, url),
        Client(hub_of(url)) as client,
    ):
        with pytest.raises(RequestRejected, match=r"Say why\.$") as rejection:
            await client.publish("a", idempotency_key="k")
    assert rejection.value.status == status


@promises.ANSWERED_AFTER_MAJORITY
async def test_who_publishes_learns_whether_the_event_may_be_committed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dead = await closed_port()
    async with Client(dead, rng=Random(1)) as client:
        with pytest.raises(Unavailable, match="nothing was committed") as nothing:
            await client.publish("a", within_s=3)
    assert not isinstance(nothing.value, ProposalUncertain)
    async with (
        scripted(*[answer(504, "unknown")] * 20) as (_, url),
        Client([hub_of(url), dead], rng=Random(1)) as client,
    ):
        with pytest.raises(ProposalUncertain, match="publish it again with the same id"):
            await client.publish("a", within_s=3)


@promises.ANSWERED_AFTER_MAJORITY
async def test_an_event_that_nobody_answers_in_time_may_be_committed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with silent_server() as url, Client(url) as client:
        with pytest.raises(ProposalUncertain, match="no answer within 3 s"):
            await client.publish("a", within_s=3)


class NoNames(trio.abc.HostnameResolver):
    """A name server that does not answer."""

    async def getaddrinfo(self, *_: object, **__: object) -> NoReturn:
        await trio.sleep_forever()
        raise AssertionError

    async def getnameinfo(self, *_: object) -> NoReturn:
        raise AssertionError


async def never(_: httpx.Request) -> NoReturn:
    await trio.sleep_forever()
    raise AssertionError


@promises.ANSWERED_AFTER_MAJORITY
async def test_an_event_is_surely_not_committed_when_its_name_is_not_found_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    async with Client("http://hub.example.com") as client:
        with pytest.raises(Unavailable, match="no connection within 3 s") as caught:
            await client.publish("a", within_s=3)
    assert not isinstance(caught.value, ProposalUncertain)


@promises.ANSWERED_AFTER_MAJORITY
@pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning")
async def test_an_event_is_surely_not_committed_when_no_tls_handshake_ends_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with silent_server() as url, Client(url.replace("http:", "https:")) as client:
        with pytest.raises(Unavailable, match="no connection within 3 s") as caught:
            await client.publish("a", within_s=3)
    assert not isinstance(caught.value, ProposalUncertain)
    del caught
    gc.collect()  # httpcore forgets to close a connection whose handshake is cancelled


@promises.ANSWERED_AFTER_MAJORITY
@pytest.mark.filterwarnings("ignore:.*unclosed:ResourceWarning")
async def test_an_event_is_surely_not_committed_when_a_tls_handshake_fails(tmp_path: Path) -> None:
    shown = peer_context(issue(Wanted(ips=("127.0.0.1",)), authority()), tmp_path, server=True)
    async with over_tls(Script([]), shown) as url, Client(url, rng=Random(1)) as client:
        with pytest.raises(Unavailable, match="nothing was committed") as caught:
            await client.publish("a", within_s=0.3)  # the last handshake may be cut off by this
    assert not isinstance(caught.value, ProposalUncertain)
    del caught
    gc.collect()


@promises.ANSWERED_AFTER_MAJORITY
async def test_an_event_may_be_committed_when_a_connection_that_lived_on_is_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing is connected for it: what has left is known from the first step on."""

    async def serve(connection: trio.SocketStream) -> None:
        async with connection:
            await connection.receive_some()
            await connection.send_all(answer(200, "id-1").replace(b"Connection: close", b"X: y"))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with Client(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}") as client:
            assert await client.publish("a") == "id-1"
            with pytest.raises(ProposalUncertain, match="no answer within 3 s"):
                await client.publish("a", within_s=3)
        nursery.cancel_scope.cancel()


@promises.ANSWERED_AFTER_MAJORITY
async def test_an_event_may_be_committed_when_a_transport_does_not_tell_what_has_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(never)) as http:
        with pytest.raises(ProposalUncertain, match="no answer within 3 s"):
            await Client("http://hub.example.com", http=http).publish("a", within_s=3)


async def test_a_page_of_another_server_is_no_id_of_an_event() -> None:
    page = answer(200, "<p>Welcome", "Content-Type: text/html; charset=utf-8")
    async with scripted(page) as (_, url), Client(hub_of(url)) as client:
        with pytest.raises(RequestRejected, match="answers with a page"):
            await client.publish("a")


async def test_an_event_goes_to_the_next_node_when_another_server_answers() -> None:
    page = answer(200, "<p>Welcome", "Content-Type: text/html; charset=utf-8")
    async with (
        scripted(page) as (_, one),
        scripted(answer(404, "what?")) as (_, two),
        scripted(answer(200, "id-1")) as (good, three),
        Client([*map(hub_of, (one, two, three))]) as client,
    ):
        assert await client.publish("a") == "id-1"
    assert len(good.requests) == 1


@promises.ANSWERED_AFTER_MAJORITY
async def test_an_event_that_may_be_committed_stays_so_when_another_server_answers_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        scripted(answer(502, "lost"), *[answer(404, "what?")] * 20) as (_, url),
        Client(hub_of(url), rng=Random(1)) as client,
    ):
        with pytest.raises(ProposalUncertain, match="may or may not be committed"):
            await client.publish("a", within_s=3)


async def test_no_error_shows_the_login_of_a_hub() -> None:
    for url in ("http://user:hush@127.0.0.1:1", "http://user:a/hush@127.0.0.1:1"):
        with pytest.raises((LocalError, Unavailable)) as caught:
            async with Client(url) as client:
                await client.publish("a", within_s=0.1)
        assert "hush" not in str(caught.value)


async def read(client: Client, *topics: str, after: str = "") -> list[StreamEvent]:
    async with client.subscribe(*topics, last_event_id=after) as events:
        return [event async for event in events]


async def test_a_stream_goes_on_at_the_next_node_where_it_was() -> None:
    dead = await closed_port()
    async with (
        scripted(HEAD + b"id: 1\ndata: a\n\nid: 2\ndata: cut", NO_CONTENT) as (first, one),
        scripted(HEAD + b"event: t\nid: 2\ndata: b\n\n") as (second, two),
        Client([hub_of(one), dead, hub_of(two)], token="t") as client,
    ):
        events = await read(client, "x y", "*", after="0")
    assert [(event.last_event_id, event.type, event.data) for event in events] == [
        ("1", "message", "a"),
        ("2", "t", "b"),
    ]
    target = first.requests[0].split()[1]
    assert target == "/.well-known/mercure?topic=x+y&topic=%2A&cursor=1"
    asked = [headers_of(request) for request in (*first.requests, *second.requests)]
    assert [request["last-event-id"] for request in asked] == ["0", "2", "1"]
    assert {request["authorization"] for request in asked} == {"Bearer t"}


async def test_a_stream_that_is_rejected_says_why() -> None:
    async with (
        scripted(answer(401, "the token has expired\n")) as (_, url),
        Client(hub_of(url)) as client,
    ):
        with pytest.raises(RequestRejected, match="the token has expired") as rejection:
            await read(client, "a")
    assert rejection.value.status == 401


async def test_a_fresh_token_is_asked_for_each_time() -> None:
    tokens = iter(["one", "two"])

    async def fresh() -> str:
        return next(tokens)

    async with (
        scripted(HEAD, NO_CONTENT) as (script, url),
        Client(hub_of(url), token=fresh) as client,
    ):
        assert await read(client, "a") == []
    shown = [headers_of(request)["authorization"] for request in script.requests]
    assert shown == ["Bearer one", "Bearer two"]


async def test_a_stream_is_closed_when_its_reader_leaves() -> None:
    body = b"id: 1\ndata: a\n\n"
    chunked = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
    head, _, hint = chunked.partition(b"\r\n\r\n")
    chunk = b"%x\r\n%b\r\n" % (len(hint + body), hint + body)
    async with (
        scripted(head + b"\r\n\r\n" + chunk) as (_, url),
        Client(hub_of(url)) as client,
        client.subscribe("a") as events,
    ):
        async for event in events:
            assert event.data == "a"
            break
        # `scripted` ends only when its connection is closed.


async def test_settings_of_httpx_are_the_applications() -> None:
    async with (
        scripted(answer(200, "id-1")) as (script, url),
        httpx.AsyncClient(headers={"X-Trace": "7"}) as http,
    ):
        async with Client(hub_of(url), http=http) as client:
            await client.publish("a")
        assert not http.is_closed
    assert headers_of(script.requests[0])["x-trace"] == "7"


def test_a_client_without_a_node_is_a_mistake_of_its_maker() -> None:
    with pytest.raises(LocalError, match="one at least"):
        Client([])


@pytest.mark.parametrize("url", ["127.0.0.1:8402", "ftp://a", "http://", "http://x:y/", ""])
def test_what_is_no_url_of_a_node_is_a_mistake_of_its_maker(url: str) -> None:
    with pytest.raises(LocalError, match="not the URL of a node"):
        Client(url)
