"""Promises of the listener: what happens to connections, over real loopback sockets."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import h2.connection
import h2.events
import h11
import pytest
import trio
import trio.testing

from noti.errors import AddressInUse
from noti.http import hypercorn_glue
from noti.http.config import HttpConfig
from noti.http.server import LOOK_EVERY_S, Frontend
from noti.streams.config import HubConfig
from tests import promises
from tests.http.stage import (
    LIMIT_S,
    Node,
    client,
    hub,
    ids,
    notification,
    notifications,
    serving,
    until,
)


async def exchange(address: tuple[str, int], request: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    with trio.fail_after(LIMIT_S):
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            await stream.send_all(request)
            return b"".join([part async for part in stream])


@promises.INVALID_BYTES_STOP_NO_NODE
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET ?x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ],
)
async def test_invalid_bytes_get_an_answer_for_people_and_the_node_goes_on(
    request_bytes: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(hub()) as address:
        answer = await exchange(address, request_bytes)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"not a request that this server understands" in answer
        assert b"HTTP/1.1 200" in await exchange(
            address, b"GET /liveness HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
    assert "Traceback" not in "".join(capfd.readouterr())


async def test_a_websocket_is_refused_where_there_is_none(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with serving(hub()) as address:
        answer = await exchange(
            address,
            b"GET /status HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert answer.endswith(b"over HTTP/1.1.\n")
    assert "Traceback" not in "".join(capfd.readouterr())


async def test_no_websocket_is_offered_over_http_2() -> None:
    """A browser would open it on the connection that it has, and nowhere else (RFC 8441)."""
    http = h2.connection.H2Connection()
    http.initiate_connection()
    async with serving(hub()) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(http.data_to_send())
        events: list[h2.events.Event] = []
        with trio.fail_after(LIMIT_S):
            while not any(isinstance(one, h2.events.RemoteSettingsChanged) for one in events):
                events += http.receive_data(await stream.receive_some(65536))
    assert http.remote_settings.enable_connect_protocol == 0
    assert http.remote_settings.max_concurrent_streams is not None


async def test_requests_behind_a_stream_are_ignored() -> None:
    there = hub()
    async with serving(there) as address, client(address) as one:
        second = b"GET /liveness HTTP/1.1\r\nhost: x\r\n\r\n"
        head = one.http.send(h11.Request(method="GET", target="/category", headers=[("host", "x")]))
        await one.stream.send_all(head + one.http.send(h11.EndOfMessage()) + second)
        await until(lambda: there.clients == 1)
        await one.stream.send_all(second)
        there.publish(notifications(1, 2))
        assert isinstance(await one._next(), h11.Response)
        text = await one.read_until("id-2")
    assert ids(text) == ["id-1", "id-2"]


async def test_http_1_0_gets_the_same_events_unchunked() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    async with serving(there) as address:
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            await stream.send_all(b"GET /category HTTP/1.0\r\nLast-Event-ID: id-1\r\n\r\n")
            received = b""
            with trio.fail_after(LIMIT_S):
                while b"id-3" not in received:
                    received += await stream.receive_some()
                there.publish(notifications(4, 5))
                while b"id-5" not in received:
                    received += await stream.receive_some()
        await until(lambda: there.clients == 0)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert ids(body.decode() + "\n\n") == ["id-2", "id-3", "id-4", "id-5"]


async def test_http_2_gets_the_same_events() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    http = h2.connection.H2Connection()
    http.initiate_connection()
    http.send_headers(
        1,
        [
            (":method", "GET"),
            (":path", "/category?last_event_id=id-1"),
            (":scheme", "http"),
            (":authority", "localhost"),
        ],
        end_stream=True,
    )
    async with serving(there) as address:
        stream = await trio.open_tcp_stream(*address)
        received = b""
        async with stream:
            with trio.fail_after(LIMIT_S):
                while b"id-5" not in received:
                    await stream.send_all(http.data_to_send())
                    for event in http.receive_data(await stream.receive_some()):
                        if isinstance(event, h2.events.DataReceived):
                            received += event.data
                    if b"id-3" in received and there.feed.newest_seq == 3:
                        there.publish(notifications(4, 5))
        await until(lambda: there.clients == 0)
    assert ids(received.decode() + "\n\n") == ["id-2", "id-3", "id-4", "id-5"]


@pytest.mark.slow
async def test_a_client_of_the_ordinary_path_that_takes_nothing_is_disconnected() -> None:
    there = hub()
    config = HttpConfig(send_timeout_s=0.1)
    async with serving(there, config=config) as address:
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            await stream.send_all(b"GET /.well-known/mercure?topic=* HTTP/1.0\r\n\r\n")
            await until(lambda: there.clients == 1)
            # More than the kernel holds for one loopback connection.
            big = "x" * 100_000
            there.publish([notification(n, data=big) for n in range(1, 200)])
            await until(lambda: there.clients == 0)


async def test_shutdown_ends_all_streams_in_order_and_frees_the_port() -> None:
    there = hub()
    frontend = Frontend(("127.0.0.1", 0), there, Node(), HttpConfig())
    async with trio.open_nursery() as outer:
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            with scope:
                await frontend.run(task_status=task_status)

        address = await outer.start(run)
        async with client(address) as new, client(address) as idle:
            await new.request("/category")
            old = await trio.open_tcp_stream(*address)
            await old.send_all(b"GET /category HTTP/1.0\r\n\r\n")
            await until(lambda: there.clients == 2)
            scope.cancel()
            with trio.fail_after(LIMIT_S):
                assert (await new.read_all()).count("retry: ") == 2
                async with old:
                    ended = b"".join([part async for part in old])
                assert ended.count(b"retry: ") == 2
                assert await idle.stream.receive_some() == b""
    assert there.clients == 0
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(address)
        again.listen()


@pytest.mark.parametrize("moment", range(16))
async def test_a_node_that_is_stopped_while_its_listeners_start_ends(moment: int) -> None:
    frontend = Frontend(("127.0.0.1", 0), hub(), Node(), HttpConfig(), ops_bind=("127.0.0.1", 0))

    async def cancel_then(scope: trio.CancelScope) -> None:
        for _ in range(moment):
            await trio.lowlevel.cancel_shielded_checkpoint()
        scope.cancel()

    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_then, nursery.cancel_scope)
            nursery.start_soon(frontend.run)


@pytest.mark.slow
async def test_a_connection_is_kept_for_more_requests_but_not_for_ever() -> None:
    config = HttpConfig(idle_timeout_s=0.05)
    async with serving(hub(), config=config) as address:
        for _ in range(10):
            async with client(address) as one:
                for _ in range(2):
                    await one.request("/liveness")
                    await one.read_all()
                with trio.fail_after(LIMIT_S):
                    assert await one.stream.receive_some() == b""


async def test_an_address_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        frontend = Frontend(("127.0.0.1", port), hub(), Node(), HttpConfig())
        with pytest.raises(AddressInUse, match=f"--http-addr 127.0.0.1:{port} cannot be used"):
            await frontend.run()


async def test_no_descriptor_outlives_its_connection() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    there = hub()
    async with serving(there) as address:
        serving_alone = descriptors()
        for _ in range(3):
            clients = []
            for _ in range(10):
                one = await trio.open_tcp_stream(*address)
                await one.send_all(b"GET /category HTTP/1.1\r\nhost: x\r\n\r\n")
                clients.append(one)
            await until(lambda: there.clients == 10)
            for one in clients:
                await one.aclose()
            await until(lambda: there.clients == 0)
            await until(lambda: descriptors() == serving_alone)
    await until(lambda: descriptors() == before)


async def test_a_node_that_becomes_leader_sheds_its_clients_if_configured_so() -> None:
    there, node = hub(), Node(leader=False)
    config = HttpConfig(leader_sheds=True, shed_window_s=0.0)
    async with serving(there, node, config) as address, client(address) as one:
        await one.request("/category")
        await until(lambda: there.clients == 1)
        node.leader = True
        assert (await one.read_all()).count("retry: ") == 2
        async with client(address) as two:
            await two.request("/category")
            await until(lambda: there.clients == 1)


async def test_a_node_sheds_its_clients_only_at_the_moment_when_it_becomes_leader(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Neither while it follows, nor for as long as it leads."""
    there, node = hub(), Node(leader=False)
    config = HttpConfig(leader_sheds=True, shed_window_s=0.0)
    async with serving(there, node, config) as address:
        for leads, stay in [(False, True), (True, False), (True, True), (False, True)]:
            node.leader = leads
            async with client(address) as one:
                await one.request("/category")
                await until(lambda: there.clients == 1)
                await trio.sleep(5 * LOOK_EVERY_S)
                assert (there.clients == 1) == stay, (leads, stay)
            await until(lambda: there.clients == 0)


async def fails() -> None:
    await trio.lowlevel.checkpoint()
    raise AttributeError("'NoneType' object has no attribute 'write'")


async def fails_in_a_group() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        await trio.sleep_forever()


async def fails_when_cancelled() -> None:
    """As do two tasks of one connection: one error, and one cancellation."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clumsy)
        await trio.sleep_forever()


async def clumsy() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise AssertionError("must be connected first")


PROBE = b"GET /liveness HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@promises.CONNECTION_FAILS_ALONE
@pytest.mark.parametrize("failing", [fails, fails_in_a_group])
async def test_error_of_the_library_ends_one_connection_and_no_more(
    failing: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(hub()) as address:
        with monkeypatch.context() as broken:
            broken.setattr(hypercorn_glue, "TCPServer", lambda *_: failing())
            assert await exchange(address, PROBE) == b""
        assert b"HTTP/1.1 200" in await exchange(address, PROBE)


async def test_error_of_the_library_at_the_stop_does_not_end_the_node_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hypercorn_glue, "TCPServer", lambda *_: fails_when_cancelled())
    with trio.fail_after(LIMIT_S):
        async with serving(hub(), config=HttpConfig(grace_s=0.01)) as address:
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(PROBE)
            await trio.testing.wait_all_tasks_blocked(0.05)
        await stream.aclose()


@promises.BROKEN_NODE_ENDS
async def test_streams_of_a_node_that_falls_are_reset_and_not_drained() -> None:
    there, falls = hub(drain_window_s=10 * LIMIT_S), trio.Event()
    frontend = Frontend(("127.0.0.1", 0), there, Node(), HttpConfig(), falls=falls)
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(frontend.run)
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(b"GET /category HTTP/1.1\r\nhost: x\r\n\r\n")
            received = bytearray(await stream.receive_some())
            await until(lambda: there.clients == 1)
            falls.set()
            nursery.cancel_scope.cancel()
        async with stream:
            async for some in stream:
                received += some
    assert b": ok" in received
    assert not received.endswith(b"0\r\n\r\n"), "its reader would take it for one that has ended"


async def test_other_settings_count_from_the_next_request_on() -> None:
    there = hub()
    config = HttpConfig(head_bytes_max=4096)
    frontend = Frontend(("127.0.0.1", 0), there, Node(), config)
    long = [("x-long", "x" * 8000), ("origin", "https://a.example")]
    async with trio.open_nursery() as nursery:
        address = await nursery.start(frontend.run)
        for path in ("/category", "/"):
            async with client(address) as one:
                assert (await one.request(path, long)).status_code == 431
        # Asked for once, it is remembered.
        for _ in range(2):
            async with client(address) as one:
                response = await one.request("/category")
                assert b"access-control-allow-origin" not in dict(response.headers)
        frontend.change(HttpConfig(head_bytes_max=16384, cors_origins=("*",)))
        there.change(HubConfig(clients_max=1))
        await until(lambda: there.clients == 0)
        for path in ("/category", "/"):
            async with client(address) as one:
                response = await one.request(path, long)
                assert response.status_code == 200
                assert dict(response.headers)[b"access-control-allow-origin"] == b"*"
        nursery.cancel_scope.cancel()
