"""Promises of web workers, which are real processes here, to a node and to its browsers."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import h11
import pytest
import trio
from structlog.testing import capture_logs

from noti.errors import Overloaded
from noti.streams import sse
from noti.web_workers import worker_process
from noti.web_workers import workers as pool
from tests import promises
from tests.http.stage import LIMIT_S, Client, client, ids, until
from tests.interop.processes import is_running
from tests.web_workers.stage import Site, publisher_token, site

STREAM = "/.well-known/mercure?topic=t"
READERS = 16
"""Enough that both workers have some, as the kernel spreads them: but for one run in 32,000."""

pytestmark = pytest.mark.interop


@asynccontextmanager
async def readers(one: Site, count: int = READERS) -> AsyncIterator[list[Client]]:
    found = [await Client.open(one.address) for _ in range(count)]
    try:
        for reader in found:
            await reader.request(STREAM, [("accept", sse.MEDIA_TYPE)])
        yield found
    finally:
        for reader in found:
            await reader.aclose()


async def gets(reader: Client, text: str) -> bool:
    """Return whether a reader gets a text, and not the end of its connection."""
    try:
        await reader.read_until(text)
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        return False
    return True


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def test_each_worker_shows_all_that_the_node_applies_in_its_order(tmp_path: Path) -> None:
    async with site(tmp_path) as one, readers(one) as clients:
        await until(lambda: one.workers.clients == READERS)
        assert all(worker.alive.clients for worker in one.workers._workers.values())
        one.publish(1, 300)
        for reader in clients:
            assert ids(await reader.read_until("data: 300\n")) == numbers(1, 300)


async def test_what_was_applied_before_a_worker_started_can_be_resumed_from(tmp_path: Path) -> None:
    one = Site(tmp_path, 1)
    one.publish(1, 5)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        async with client(one.address) as reader:
            await reader.request(STREAM, [("last-event-id", "2")])
            one.publish(6, 6)
            assert ids(await reader.read_until("data: 6\n")) == numbers(3, 6)
        nursery.cancel_scope.cancel()


async def test_an_event_is_published_at_a_worker_and_answered_once_it_is_shown_there(
    tmp_path: Path,
) -> None:
    headers = [
        ("authorization", f"Bearer {publisher_token()}"),
        ("content-type", "application/x-www-form-urlencoded"),
    ]
    body = urlencode({"topic": "t", "data": "hello", "id": "7"}).encode()
    headers.append(("content-length", str(len(body))))
    async with site(tmp_path) as one, readers(one, 2) as clients:
        one.commands.failures = [Overloaded("too much waits")]
        async with client(one.address) as publisher:
            refused = await publisher.request("/.well-known/mercure", headers, "POST", body)
            assert refused.status_code == 503
        async with client(one.address) as publisher:
            taken = await publisher.request("/.well-known/mercure", headers, "POST", body)
            assert taken.status_code == 200
            assert await publisher.read_all() == "7"
        for reader in clients:
            await reader.read_until("data: hello\n")
        assert len(one.commands.committed) == 1


@promises.NODES_NOT_SHOWN
async def test_probes_and_operators_are_answered_by_the_node(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with site(tmp_path, 1) as one:
            [ops] = [line for line in lines if line["event"] == "listening for operators"]
            one.node.extra = {"commit": 7}
            for target in ("/liveness", "/readiness", "/status?consistent=1", "/metrics"):
                async with client((ops["host"], ops["port"])) as operator:
                    assert (await operator.request(target)).status_code == 200, target
                    if target.startswith("/status"):
                        assert '"commit": 7' in await operator.read_all()
            assert one.node.barriers == 1
            for path, status in {"/liveness": 200, "/readiness": 200, "/status": 404}.items():
                async with client(one.address) as browser:
                    assert (await browser.request(path)).status_code == status
            one.node.is_ready = False
            async with client(one.address) as browser:
                assert (await browser.request("/readiness")).status_code == 503
                assert '"ServerID"' in await browser.read_all()


async def test_a_killed_worker_is_replaced_and_its_clients_resume(tmp_path: Path) -> None:
    async with site(tmp_path) as one, readers(one) as clients:
        one.publish(1, 10)
        for reader in clients:
            await reader.read_until("data: 10\n")
        before = one.pids()
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: len(one.pids()) == 2 and one.pids()[0] != before[0])
        one.publish(11, 20)
        kept = 0
        for reader in clients:
            if await gets(reader, "data: 20\n"):
                assert ids(reader.text) == numbers(1, 20)
                kept += 1
            else:
                async with client(one.address) as again:
                    await again.request(STREAM, [("last-event-id", ids(reader.text)[-1])])
                    assert ids(await again.read_until("data: 20\n")) == numbers(11, 20)
        assert 0 < kept < READERS, "only the clients of one worker had to come back"


async def test_a_worker_that_hangs_holds_up_nobody_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "SILENT_S_MAX", 1.0)
    async with site(tmp_path) as one, readers(one) as clients:
        hung = one.pids()[0]
        os.kill(hung, signal.SIGSTOP)
        one.publish(1, 1000)  # which returns: nothing waits for a worker
        shown = 0

        async def follow(reader: Client) -> None:
            nonlocal shown
            if await gets(reader, "data: 1000\n"):
                shown += 1

        async with trio.open_nursery() as nursery:
            for reader in clients:
                nursery.start_soon(follow, reader)
        assert 0 < shown < READERS
        await until(lambda: not is_running(hung) and len(one.pids()) == 2)
        async with client(one.address) as again:
            await again.request(STREAM, [("last-event-id", "999")])
            assert ids(await again.read_until("data: 1000\n")) == ["1000"]


async def test_a_worker_that_does_not_take_what_it_is_told_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "WAITING_BYTES_MAX", 100_000)
    async with site(tmp_path) as one:
        hung = one.pids()[0]
        os.kill(hung, signal.SIGSTOP)
        one.publish(1, 20_000)
        await until(lambda: not is_running(hung))


async def test_streams_end_in_order_when_the_node_stops(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        pids = one.pids()
        found = [await Client.open(one.address) for _ in range(4)]
        for reader in found:
            await reader.request(STREAM)
    for reader in found:
        assert "retry: " in await reader.read_all()
        await reader.aclose()
    assert not any(map(is_running, pids))


async def test_a_node_that_falls_ends_its_streams_at_once(tmp_path: Path) -> None:
    async with site(tmp_path) as one:
        pids = one.pids()
        reader = await Client.open(one.address)
        await reader.request(STREAM)
        one.workers.abandon()
    assert not any(map(is_running, pids))
    with trio.fail_after(LIMIT_S), suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
        await reader.read_all()
    await reader.aclose()


async def test_who_is_subscribed_is_announced_by_each_worker_and_ends_with_it(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, subscriptions=True) as one, readers(one):
        table = one.store.subscriptions
        await until(lambda: table.count == one.workers.clients == READERS)
        assert set(table.lives()) == {"n1/1", "n1/2"}
        killed = one.workers.processes()[0]
        os.kill(one.pids()[0], signal.SIGKILL)
        await until(lambda: table.count == READERS - int(str(killed["clients"])))


async def test_how_each_worker_stands_is_in_the_status(tmp_path: Path) -> None:
    async with site(tmp_path) as one, readers(one):
        await until(lambda: one.workers.clients == READERS)
        shown = one.workers.processes()
        assert [worker["number"] for worker in shown] == [1, 2]
        assert [worker["pid"] for worker in shown] == one.pids()
        assert {worker["state"] for worker in shown} == {"serving"}
        assert sum(int(str(worker["clients"])) for worker in shown) == READERS


async def test_a_node_without_a_worker_that_serves_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PAUSE_FIRST_S", 60.0)
    async with site(tmp_path, 1) as one:
        assert (await one.workers._operations("/readiness", "")).status == 200
        os.kill(one.pids()[0], signal.SIGKILL)
        await until(lambda: not one.pids())
        answer = await one.workers._operations("/readiness", "")
        assert answer.status == 503
        assert b"no web worker takes connections" in answer.body
        assert one.workers.processes()[0]["state"] == "dead"


async def test_whoever_comes_while_a_node_drains_is_refused_at_once(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        one = Site(tmp_path, 2, sse_drain_s=30.0, shutdown_deadline_s=60.0)
        await nursery.start(one.run)
        reader = await Client.open(one.address)
        await reader.request(STREAM)
        nursery.cancel_scope.cancel()
        refused = False
        with trio.CancelScope(shield=True), trio.fail_after(LIMIT_S):
            while not refused:
                try:
                    (await trio.open_tcp_stream(*one.address)).socket.close()
                except OSError:
                    refused = True
            # Its worker still has it, and is not replaced when it dies.
            for pid in one.pids():
                os.kill(pid, signal.SIGKILL)
            with suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
                await reader.read_all()
            await reader.aclose()
            await until(lambda: not one.workers._workers)
    assert not one.workers._workers


async def test_a_node_that_is_stopped_while_its_workers_start_does_not_wait_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "READY_WITHIN_S", 10 * LIMIT_S)
    monkeypatch.setattr(worker_process, "dying_with_us", lambda *_command: ["sleep", "1000"])
    one = Site(tmp_path, 2)
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, one.run)
            await until(lambda: len(one.workers._workers) == 2)
            one.workers.abandon()
            nursery.cancel_scope.cancel()


async def test_publishers_are_slowed_by_a_worker_that_lags_and_not_by_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "LAG_BYTES", 100_000)
    async with site(tmp_path, 1) as one, readers(one, 1):
        await until(lambda: one.workers.clients == 1)
        (worker,) = one.workers._workers.values()
        os.kill(worker.process.pid, signal.SIGSTOP)
        one.publish(1, 20_000)
        await until(lambda: one.workers.pressure > 0.0)
        await until(lambda: one.workers.pressure == 0.0)
        assert worker.link.waiting_bytes > worker_process.LAG_BYTES
        os.kill(worker.process.pid, signal.SIGCONT)
        await until(lambda: worker.link.waiting_bytes == 0)
        assert one.workers.pressure == 0.0


async def is_streaming(reader: Client) -> bool:
    """Ask for a stream; return whether it has begun, and not just ended for want of room."""
    await reader.request(STREAM, [("accept", sse.MEDIA_TYPE)])
    with trio.move_on_after(0.2):
        await reader.read_all()
        return False
    return True


async def test_all_workers_together_have_as_many_streams_as_the_node_may_have(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, sse_clients_max=4) as one, AsyncExitStack() as stack:
        open_streams = 0
        with trio.fail_after(LIMIT_S):
            while open_streams < 4:
                reader = await stack.enter_async_context(client(one.address))
                open_streams += await is_streaming(reader)
        for _ in range(6):
            async with client(one.address) as reader:
                assert not await is_streaming(reader)
        assert one.workers.clients == 4


async def test_an_address_has_as_many_streams_at_all_workers_as_it_may_have(
    tmp_path: Path,
) -> None:
    async with (
        site(tmp_path, sse_clients_per_address_max=3) as one,
        AsyncExitStack() as stack,
    ):
        for _ in range(3):
            reader = await stack.enter_async_context(client(one.address))
            assert await is_streaming(reader)
        for _ in range(6):
            async with client(one.address) as reader:
                assert not await is_streaming(reader)
        await stack.aclose()
        await until(lambda: one.workers.clients == 0)
        async with client(one.address) as reader:
            assert await is_streaming(reader)
