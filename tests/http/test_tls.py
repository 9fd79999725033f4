"""HTTPS and the operators' address, over real loopback sockets."""

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import h2.connection
import h2.events
import pytest
import trio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.address import Address
from noti.http.config import HttpConfig
from noti.http.ops import PATHS, PROBES, TRACE
from noti.http.server import Frontend
from noti.streams.hub import Hub
from tests import promises
from tests.http.stage import (
    LIMIT_S,
    Node,
    client,
    hub,
    ids,
    notification,
    notifications,
    until,
)
from tests.http.tls_stage import SecuredEnd, Site, new_context, new_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return new_site(tmp_path)


@asynccontextmanager
async def serving(
    there: Hub, site: Site | None, config: HttpConfig | None = None, ops_port: int | None = None
) -> AsyncIterator[Address]:
    frontend = Frontend(
        ("127.0.0.1", 0),
        there,
        Node(),
        config or HttpConfig(),
        tls=None if site is None else site.tls,
        ops_bind=None if ops_port is None else ("127.0.0.1", ops_port),
    )
    async with trio.open_nursery() as nursery:
        yield await nursery.start(frontend.run)
        nursery.cancel_scope.cancel()


async def opened(address: Address, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    stream = await trio.open_tcp_stream(*address)
    secured = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError:
        await stream.aclose()
        raise
    return secured


async def test_http_2_is_agreed_by_alpn_and_streams_every_event(site: Site) -> None:
    there = hub()
    there.publish(notifications(1, 3))
    http = h2.connection.H2Connection()
    http.initiate_connection()
    path = "/category?last_event_id=id-1"
    names = [(":method", "GET"), (":path", path), (":scheme", "https"), (":authority", "localhost")]
    http.send_headers(1, names, end_stream=True)
    async with serving(there, site) as address:
        stream = await opened(address, site.trusting("h2", "http/1.1"))
        assert stream.selected_alpn_protocol() == "h2"
        received = b""
        with trio.fail_after(LIMIT_S):
            while b"id-5" not in received:
                await stream.send_all(http.data_to_send())
                for event in http.receive_data(bytes(await stream.receive_some())):
                    if isinstance(event, h2.events.DataReceived):
                        received += event.data
                if b"id-3" in received and there.feed.newest_seq == 3:
                    there.publish(notifications(4, 5))
        await stream.aclose()
        await until(lambda: there.clients == 0)
    assert ids(received.decode() + "\n\n") == ["id-2", "id-3", "id-4", "id-5"]


@pytest.mark.parametrize("protocols", [["http/1.1"], []], ids=["http/1.1", "no ALPN"])
async def test_http_1_1_streams_from_the_hub_and_drains(site: Site, protocols: list[str]) -> None:
    there = hub()
    there.publish(notifications(1, 3))
    async with serving(there, site) as address:
        stream = await opened(address, site.trusting(*protocols))
        request = b"GET /category HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: id-1\r\n\r\n"
        await stream.send_all(request)
        received = b""
        with trio.fail_after(LIMIT_S):
            while b"id-3" not in received:
                received += await stream.receive_some()
            there.publish(notifications(4, 5))
            while b"id-5" not in received:
                received += await stream.receive_some()
        assert len(there._sending.adopted) == there.clients == 1
    with trio.fail_after(LIMIT_S):
        while chunk := await stream.receive_some():
            received += chunk
    assert b"retry:" in received, "the end is told"
    await stream.aclose()


STREAM = b"GET /category HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def read_until(stream: trio.abc.ReceiveStream, words: bytes) -> bytes:
    received = b""
    with trio.fail_after(LIMIT_S):
        while words not in received:
            data = await stream.receive_some(65_536)
            assert data, received
            received += data
    return received


async def test_stream_behind_another_request_goes_to_the_hub_too(site: Site) -> None:
    there = hub()
    async with serving(there, site) as address:
        stream = await opened(address, site.trusting("http/1.1"))
        await stream.send_all(b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(stream, b"200")
        await stream.send_all(STREAM)
        await read_until(stream, b": ok")
        await until(lambda: len(there._sending.adopted) == 1)
        there.publish(notifications(1, 2))
        await read_until(stream, b"id-2")
        await stream.aclose()
        await until(lambda: there.clients == 0)


async def test_relative_patterns_are_resolved_against_an_https_url(site: Site) -> None:
    there = hub()
    query = "match_urlpattern=/books/:id"
    request = f"GET /.well-known/mercure?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with serving(there, site) as address:
        stream = await opened(address, site.trusting("http/1.1"))
        await stream.send_all(request)
        await read_until(stream, b": ok")
        there.publish([notification(1, "http://localhost/books/1")])
        there.publish([notification(2, "https://localhost/books/1")])
        assert b"id-1" not in await read_until(stream, b"id-2")
        await stream.aclose()


async def test_client_that_renews_its_keys_and_ends_its_side_is_served_until_it_goes(
    site: Site, tmp_path: Path
) -> None:
    """OpenSSL's own client: the hub reads nothing of what it sends, and need not."""
    there = hub()
    async with serving(there, site) as (host, port), trio.open_nursery() as nursery:
        command = ["openssl", "s_client", "-crlf", "-connect", f"{host}:{port}"]
        start = partial(
            trio.run_process,
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
        process = await nursery.start(start)
        await process.stdin.send_all(STREAM.replace(b"\r\n", b"\n"))
        await read_until(process.stdout, b": ok")
        assert len(there._sending.adopted) == 1
        for number in range(1, 4):
            await process.stdin.send_all(b"K\n")  # "update your keys, too"
            await read_until(process.stderr, b"KEYUPDATE")
            there.publish(notifications(number, number))
            await read_until(process.stdout, b"id-%d\n" % number)
        await process.stdin.send_all(b"Q\n")
        await until(lambda: there.clients == 0)


async def test_client_that_breaks_tls_is_nobody_elses_trouble(site: Site) -> None:
    there = hub()
    async with serving(there, site) as address:
        good, bad = [await opened(address, site.trusting("http/1.1")) for _ in range(2)]
        for stream in (good, bad):
            await stream.send_all(STREAM)
            await read_until(stream, b": ok")
        await bad.transport_stream.send_all(b"\x17\x03\x03\xff\xff" + bytes(1000))
        there.publish(notifications(1, 1))
        await read_until(good, b"id-1")
        await bad.transport_stream.aclose()
        await until(lambda: there.clients == 1)
        there.publish(notifications(2, 2))
        await read_until(good, b"id-2")
        await good.aclose()


async def test_websocket_over_tls_is_heard_to_the_last_byte_of_a_record(site: Site) -> None:
    """The hub reads less at once than OpenSSL decrypts, of which epoll knows nothing."""
    there = hub()
    upgrade = (
        b"GET /category HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with serving(there, site) as address:
        stream = await opened(address, site.trusting("http/1.1"))
        await stream.send_all(upgrade)
        await read_until(stream, b" 101 ")
        await until(lambda: len(there._sending.adopted) == 1)
        await stream.send_all(b"\x89\x81\0\0\0\0p" * 300 + b"\x89\x81\0\0\0\0q")
        await read_until(stream, b"\x8a\x01q")
        there.publish(notifications(1, 1))
        await read_until(stream, b"id-1")
        await stream.aclose()
        await until(lambda: there.clients == 0)


async def test_handshake_that_waits_for_room_goes_on_when_there_is_some(
    site: Site, tmp_path: Path
) -> None:
    """A certificate of many names does not fit into the buffers between both."""
    names = [f"host-{number}.example.com" for number in range(2000)]
    site.tls.current = new_context(site.ca, tmp_path, *names)
    there = hub(send_buffer_bytes=4096, chunk_bytes_max=2000)
    async with serving(there, site) as address:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        plain.setblocking(False)
        await trio.socket.from_stdlib_socket(plain).connect(address)
        stream = SecuredEnd(
            site.trusting("http/1.1").wrap_socket(
                plain, server_hostname="localhost", do_handshake_on_connect=False
            )
        )
        with trio.fail_after(LIMIT_S):
            await stream.shake_hands()
            await stream.send(STREAM)
            assert b"200" in await stream.recv(1000)
        await until(lambda: there.clients == 1)
        stream.close()


async def test_http_1_0_streams_over_tls(site: Site) -> None:
    there = hub()
    async with serving(there, site) as address:
        stream = await opened(address, site.trusting("http/1.1"))
        await stream.send_all(b"GET /category HTTP/1.0\r\n\r\n")
        await read_until(stream, b": ok")
        there.publish(notifications(1, 1))
        await read_until(stream, b"id-1")
        await stream.aclose()
        await until(lambda: there.clients == 0)


async def test_a_renewed_certificate_is_shown_and_older_connections_live_on(
    site: Site, tmp_path: Path
) -> None:
    there = hub()
    async with serving(there, site) as address:
        older = await opened(address, site.trusting())
        first = older.getpeercert(binary_form=True)
        site.tls.current = new_context(site.ca, tmp_path)
        newer = await opened(address, site.trusting())
        assert newer.getpeercert(binary_form=True) != first
        for stream in (older, newer):
            await stream.send_all(b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in await stream.receive_some()
            await stream.aclose()


def plain_calls() -> float:
    labels = {"at": "http", "reason": "plain"}
    return REGISTRY.get_sample_value("noti_tls_rejected_total", labels) or 0


async def test_plain_http_gets_a_word_for_people_and_no_answer(site: Site) -> None:
    before = plain_calls()
    async with serving(hub(), site) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(LIMIT_S):
            answer = b"".join([part async for part in stream])
        await stream.aclose()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"This address speaks HTTPS only: use https://\n")
    assert plain_calls() == before + 1


@promises.TLS_IS_SWITCHED_ON_AND_OFF
@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
async def test_permissive_address_streams_as_it_is_asked(site: Site, pieces: int) -> None:
    there = hub()
    async with serving(there, site, HttpConfig(plain_too=True)) as address:
        before = plain_calls()
        streams: list[trio.abc.Stream] = [
            await trio.open_tcp_stream(*address),
            await opened(address, site.trusting("http/1.1")),
        ]
        for stream in streams:
            size = -(-len(STREAM) // pieces)
            for start in range(0, len(STREAM), size):
                await stream.send_all(STREAM[start : start + size])
                await trio.testing.wait_all_tasks_blocked(0.001)
            await read_until(stream, b": ok")
        there.publish(notifications(1, 1))
        for stream in streams:
            await read_until(stream, b"id-1")
        assert len(there._sending.adopted) == 2
        for stream in streams:
            await stream.aclose()
        await until(lambda: there.clients == 0)
    assert plain_calls() == before, "nobody was rejected"


async def test_permissive_address_answers_one_request_after_another_without_tls(
    site: Site,
) -> None:
    async with serving(hub(), site, HttpConfig(plain_too=True)) as address:
        stream = await trio.open_tcp_stream(*address)
        for _ in range(2):
            await stream.send_all(b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in await read_until(stream, b'"up"')
        await stream.aclose()


async def test_tls_1_1_is_refused_and_logged(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serving(hub(), site) as address:
        with capture_logs() as logs:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await opened(address, context)
            assert "ALERT_PROTOCOL_VERSION" in str(caught.value.__cause__)
            await until(lambda: any("neither 1.2 nor 1.3" in line["event"] for line in logs))


async def test_silent_handshakes_end_and_keep_nobody_from_being_served(
    site: Site,
) -> None:
    async with serving(hub(), site, HttpConfig(head_timeout_s=0.5)) as address:
        silent = [await trio.open_tcp_stream(*address) for _ in range(20)]
        await silent[0].send_all(b"\x16\x03\x01")
        served = await opened(address, site.trusting())
        await served.aclose()
        for stream in silent:
            with trio.fail_after(LIMIT_S):
                assert await stream.receive_some() == b""
            await stream.aclose()


async def test_operators_are_served_without_tls_at_an_address_of_their_own_and_nowhere_else(
    site: Site,
) -> None:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with serving(hub(), site, ops_port=port) as address:
        for path in PATHS:
            async with client(("127.0.0.1", port)) as operator:
                answer = await operator.request(path)
                assert answer.status_code == (400 if path == TRACE else 200)  # of which event?
            stream = await opened(address, site.trusting())
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            expected = b" 200 " if path in PROBES else b" 404 "
            assert expected in await stream.receive_some()
            await stream.aclose()
        async with client(("127.0.0.1", port)) as operator:
            assert (await operator.request("/category")).status_code == 404


async def test_error_in_a_handshake_ends_one_connection_and_no_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'write'")

    async with serving(hub(), site) as address:
        with monkeypatch.context() as broken:
            broken.setattr("noti.http.handshakes.server_side", fail)
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(b"\x16")
            with trio.fail_after(LIMIT_S):
                assert await stream.receive_some() == b""
            await stream.aclose()
        await (await opened(address, site.trusting("http/1.1"))).aclose()
