"""Who is served when there are more connections than slots, over real loopback sockets."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from ipaddress import ip_network

import pytest
import trio
import trio.testing
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.address import Address
from noti.http.answers import Answer, plain
from noti.http.config import HttpConfig
from noti.http.request_counts import PROBES
from noti.http.server import Frontend
from tests.http.stage import LIMIT_S, Client, Node, client, hub, ids, notifications, serving, until
from tests.http.test_tls import opened, site
from tests.http.tls_stage import Site

__all__ = ["site"]

SLOW = "/readiness?slow"
"""Is not answered, see `slow_when_asked`."""
SLOW_FOR_OPERATORS = "/status?consistent=1"
"""Takes seconds at a node without a majority."""
LOCAL = ip_network("127.0.0.0/8")


def slots(number: int, per_address: int = 0, **others: object) -> HttpConfig:
    return HttpConfig(
        connections_max=number,
        connections_per_address_max=per_address,
        **others,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def answered(address: Address, number: int) -> AsyncIterator[list[Client]]:
    """Open connections that were answered, and wait."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(number):
            one = await stack.enter_async_context(client(address))
            await one.request("/page.js")
            await one.read_all()
            clients.append(one)
        yield clients


@asynccontextmanager
async def busy(address: Address, number: int, path: str = SLOW) -> AsyncIterator[None]:
    """Open connections whose requests take long."""
    async with AsyncExitStack() as stack:
        for _ in range(number):
            stream = await trio.open_tcp_stream(*address)
            await stack.enter_async_context(stream)
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: taken("http") + taken("ops") == number)
        yield


def taken(listener: str) -> float:
    return REGISTRY.get_sample_value("noti_connections", {"listener": listener}) or 0.0


def is_at(count: Callable[[], float], wanted: int) -> bool:
    return count() == wanted


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"noti_{name}_total", labels) or 0.0


@contextmanager
def adds(number: float, name: str, **labels: str) -> Iterator[None]:
    before = counted(name, **labels)
    yield
    assert counted(name, **labels) - before == number


async def slow_when_asked(path: str, query: str) -> Answer:
    if query:
        await trio.sleep_forever()
    return plain(503 if path == "/readiness" else 200, path)


slowly_serving = partial(serving, probes=slow_when_asked)
"""An address at which requests can take long."""


async def test_who_is_idle_longest_makes_room() -> None:
    async with serving(hub(), config=slots(2)) as address, answered(address, 2) as (old, new):
        with adds(1, "connections_made_room", listener="http"):
            await new.request("/page.js")
            await new.read_all()
            async with client(address) as newcomer:
                assert (await newcomer.request("/page.js")).status_code == 200
                await newcomer.read_all()
                with trio.fail_after(LIMIT_S):
                    assert await old.stream.receive_some() == b""
                assert (await new.request("/page.js")).status_code == 200


async def test_a_busy_one_stays_and_a_newcomer_is_asked_to_come_back() -> None:
    with adds(3, "connections_rejected", listener="http", reason="node"), capture_logs() as lines:
        async with slowly_serving(hub(), config=slots(2)) as address, busy(address, 2):
            for _ in range(3):
                async with client(address) as newcomer:
                    response = await newcomer.request("/page.js")
                    assert response.status_code == 503
                    assert dict(response.headers)[b"retry-after"] == b"1"
                    assert "as many connections as it may have" in await newcomer.read_all()
    assert len([line for line in lines if "rejected" in line["event"]]) == 1, "once an episode"


@pytest.mark.parametrize("path", PROBES)
async def test_probes_are_answered_when_all_are_busy(path: str) -> None:
    status = {"/readiness": 503, "/metrics": 404}.get(path, 200)
    async with slowly_serving(hub(), config=slots(2)) as address, busy(address, 2):
        for _ in range(30):
            async with client(address) as probe:
                response = await probe.request(path)
                assert response.status_code == status
                assert await probe.read_all()
                assert (await probe.request("/page.js")).status_code == 503, "a probe's slot"


async def test_streams_of_the_ordinary_way_take_no_place() -> None:
    there = hub()
    async with serving(there, config=slots(1)) as address, AsyncExitStack() as stack:
        streams = []
        for number in range(3):
            stream = await stack.enter_async_context(await trio.open_tcp_stream(*address))
            await stream.send_all(b"GET /category HTTP/1.0\r\n\r\n")
            streams.append(stream)
            await until(partial(is_at, lambda: there.clients, number + 1))
        assert taken("http") == 0
        async with answered(address, 1):
            there.publish(notifications(1, 1))
            for stream in streams:
                received = b""
                with trio.fail_after(LIMIT_S):
                    while b"id-1" not in received:
                        received += await stream.receive_some()


async def test_a_stream_of_the_ordinary_way_is_never_refused_for_want_of_a_place() -> None:
    """Any status but 200 would end an `EventSource` for ever."""
    there = hub()
    async with slowly_serving(there, config=slots(1)) as address, busy(address, 1):
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            await stream.send_all(b"GET /category HTTP/1.0\r\n\r\n")
            with trio.fail_after(LIMIT_S):
                assert b" 200 " in await stream.receive_some()
            await until(lambda: there.clients == 1)
            assert taken("http") == 1, "the stream takes none"


async def test_streams_of_the_short_way_take_no_place() -> None:
    there = hub()
    async with (
        slowly_serving(there, config=slots(1)) as address,
        busy(address, 1),
        client(address) as one,
    ):
        assert (await one.request("/category")).status_code == 200
        there.publish(notifications(1, 1))
        assert ids(await one.read_until("id-1")) == ["id-1"]


async def test_one_address_has_only_its_share() -> None:
    with adds(1, "connections_rejected", listener="http", reason="address"):
        async with (
            slowly_serving(hub(), config=slots(10, 2)) as address,
            busy(address, 2),
            client(address) as newcomer,
        ):
            response = await newcomer.request("/page.js")
            assert response.status_code == 429
            assert "Your address" in await newcomer.read_all()


async def test_who_a_trusted_proxy_comes_for_is_what_counts() -> None:
    config = slots(10, 1, trusted_proxies=(LOCAL,))
    async with slowly_serving(hub(), config=config) as address, AsyncExitStack() as stack:

        async def ask(forwarded_for: str, path: str = SLOW) -> Client:
            one = await Client.open(address)
            await stack.enter_async_context(one.stream)
            stack.push_async_callback(one.aclose)
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {forwarded_for}\r\n\r\n"
            await one.stream.send_all(head.encode())
            return one

        for number, forwarded_for in enumerate(("9.9.9.9", "8.8.8.8", "2001:db8::1")):
            await ask(forwarded_for)
            await until(partial(is_at, partial(taken, "http"), number + 1))
        with trio.fail_after(LIMIT_S):
            refused = await ask("2001:db8::2", "/page.js")
            assert (await refused.stream.receive_some()).startswith(b"HTTP/1.1 429 ")


async def test_over_tls_probes_are_answered_and_others_asked_to_come_back(site: Site) -> None:
    context = site.trusting("http/1.1")
    async with (
        slowly_serving(hub(), config=slots(1), tls=site.tls) as address,
        AsyncExitStack() as stack,
    ):

        async def ask(path: str) -> bytes:
            with trio.fail_after(LIMIT_S):
                stream = await opened(address, context)
                stack.push_async_callback(trio.aclose_forcefully, stream)
                await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                return bytes(await stream.receive_some())

        slow = await opened(address, context)
        stack.push_async_callback(trio.aclose_forcefully, slow)
        await slow.send_all(f"GET {SLOW} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await ask("/liveness")).startswith(b"HTTP/1.1 200 ")
        assert (await ask("/page.js")).startswith(b"HTTP/1.1 503 ")


async def test_at_the_operators_address_idle_ones_make_room_and_probes_are_answered() -> None:
    frontend = Frontend(
        ("127.0.0.1", 0), hub(), Node(is_ready=False), HttpConfig(), ops_bind=("127.0.0.1", 0)
    )
    async with trio.open_nursery() as nursery:
        with capture_logs() as lines:
            await nursery.start(frontend.run)
        [ops] = [line for line in lines if line["event"] == "listening for operators"]
        address = (ops["host"], ops["port"])
        async with busy(address, 16, SLOW_FOR_OPERATORS):
            for path in ("/liveness", "/metrics") * 10:
                async with client(address) as probe:
                    assert (await probe.request(path)).status_code == 200
        nursery.cancel_scope.cancel()


async def test_those_who_wait_for_the_node_to_catch_up_are_no_more_than_streams_may_be() -> None:
    there = hub(clients_max=3)
    async with serving(there, Node(is_ready=False)) as address, AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(client(address)) for _ in range(3)]
        for one in waiting:
            await one.stream.send_all(b"GET /category HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with client(address) as newcomer:
            with trio.fail_after(1):
                assert (await newcomer.request("/category")).status_code == 200
                assert "retry:" in await newcomer.read_all()
        for one in waiting:
            with trio.move_on_after(0):
                assert await one.stream.receive_some() != b"", "it was sent away"


async def test_every_answer_is_counted_by_path_and_status_whoever_gave_it() -> None:
    with (
        adds(1, "http_requests", method="GET", path="/category", code="200"),
        adds(1, "http_requests", method="GET", path="/.well-known/mercure", code="400"),
        adds(1, "http_requests", method="GET", path="page", code="200"),
        adds(1, "http_requests", method="other", path="page", code="405"),
        adds(1, "http_requests", method="GET", path="other", code="404"),
        adds(1, "http_requests", method="other", path="other", code="400"),
    ):
        async with serving(hub()) as address:
            for method, path in (
                ("GET", "/category"),
                ("GET", "/.well-known/mercure"),
                ("GET", "/page.js"),
                ("GET", "/made/up/by/a/client"),
            ):
                async with client(address) as one:
                    await one.request(path, method=method)
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(b"nonsense\r\n\r\n")
                with trio.fail_after(LIMIT_S):
                    assert await stream.receive_some()
            async with client(address) as one:
                await one.request("/", method="BREW")
