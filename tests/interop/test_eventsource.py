"""Foreign clients of one real node under 50 events a second: none misses or repeats an event.

The node is a cluster of its own with Raft and NATS. It is killed, stopped, and has streams of a
short life; clients are Chromium, two EventSources of Node, and whatever comes through nginx.
"""

import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from noti.asyncio_loop import AsyncioLoop
from noti.client.event_source import read_stream
from noti.client.event_stream import StreamEvent
from noti.client.reconnection import Reconnect, Reconnection
from tests.browser.chromium import chromium
from tests.interop.cluster import SETTLE_S_MAX
from tests.interop.nginx import nginx
from tests.interop.node_clients import follow_in_node
from tests.interop.processes import NodeProcess
from tests.interop.traffic import CATEGORY, MERCURE, Publisher
from tests.interop.witness import Witness
from tests.ports import free_port
from tests.publishing.nats.nats_server import NatsServer

pytestmark = [pytest.mark.interop, pytest.mark.slow]

BESIDES = 25
"""Events between two incidents: half a second."""


class Site:
    """One node that events flow through."""

    def __init__(
        self, directory: Path, asyncio_loop: AsyncioLoop, settings: tuple[str, ...]
    ) -> None:
        self.nats = NatsServer(directory / "nats", free_port())
        self.node = NodeProcess("single", directory)
        self.publisher = Publisher(asyncio_loop, self.nats.url)
        self._settings = settings

    async def start(self, nursery: trio.Nursery) -> None:
        await self.nats.start()
        self.node.start("--nats-url", self.nats.url, *self._settings)
        await self.node.until_up()
        nursery.start_soon(self.publisher.run)

    def url(self, target: str) -> str:
        host, port = self.node.http
        return f"http://{host}:{port}{target}"

    async def restart(self, *, crash: bool) -> None:
        if crash:
            await self.node.kill()
        else:
            self.node.signal(signal.SIGTERM)
            assert await self.node.wait() == 0
        self.node.start()
        await self.node.until_up()

    async def until_seen(self, *witnesses: Witness, more: int = BESIDES) -> None:
        """Wait until everybody has seen so many events more than are published now."""
        wanted = self.publisher.acknowledged + more
        await self._until(lambda: all(one.last >= wanted for one in witnesses), witnesses)

    async def finish(self, *witnesses: Witness) -> None:
        """Stop publishing; everybody must have seen all, once and in order."""
        last = await self.publisher.stop()
        await self._until(lambda: all(one.last >= last for one in witnesses), witnesses)
        problems = [problem for one in witnesses if (problem := one.problem())]
        assert not problems, "\n".join(problems)

    async def _until(self, condition: Callable[[], bool], witnesses: tuple[Witness, ...]) -> None:
        with trio.move_on_after(SETTLE_S_MAX):
            while not condition():  # noqa: ASYNC110
                await trio.sleep(0.01)
            return
        seen = [(one.name, one.last, one.problem()) for one in witnesses]
        raise AssertionError(f"{self.publisher.acknowledged} published, seen {seen}")


@asynccontextmanager
async def site(directory: Path, *settings: str) -> AsyncIterator[tuple[Site, trio.Nursery]]:
    async with trio.open_nursery() as outer:
        asyncio_loop = AsyncioLoop()
        await outer.start(asyncio_loop.run)
        async with trio.open_nursery() as nursery:
            there = Site(directory, asyncio_loop, settings)
            try:
                await there.start(nursery)
                yield there, nursery
            except BaseException:
                print(there.node.last_lines())
                raise
            finally:
                with trio.CancelScope(shield=True):
                    await there.node.destroy()
                    await there.nats.kill()
            nursery.cancel_scope.cancel()
        outer.cancel_scope.cancel()


@pytest.mark.node
async def test_an_eventsource_of_node_misses_nothing_when_its_node_dies_and_returns(
    tmp_path: Path,
) -> None:
    witness = Witness("eventsource")
    async with site(tmp_path) as (there, nursery):
        nursery.start_soon(follow_in_node, "eventsource", there.url(MERCURE), witness)
        await there.until_seen(witness)
        for crash in (True, False):
            await there.restart(crash=crash)
            await there.until_seen(witness)
        await there.finish(witness)
    assert witness.opened >= 3


@pytest.mark.node
async def test_streams_of_a_short_life_cost_no_client_an_event(tmp_path: Path) -> None:
    """undici's EventSource is only here: it gives up when a connection is refused."""
    witnesses = [Witness("eventsource"), Witness("undici")]
    async with site(tmp_path, "--sse-lifetime-s", "1") as (there, nursery):
        for one, target in zip(witnesses, (CATEGORY, MERCURE), strict=True):
            nursery.start_soon(follow_in_node, one.name, there.url(target), one)
        await there.until_seen(*witnesses)
        while any(one.opened < 2 for one in witnesses):
            await there.until_seen(*witnesses)
        await there.finish(*witnesses)


@pytest.mark.chromium
async def test_chromium_misses_nothing_when_its_node_dies_and_returns(tmp_path: Path) -> None:
    witness = Witness("chromium")
    async with chromium(tmp_path / "chromium") as page, site(tmp_path) as (there, nursery):
        await page.open(there.url("/"))
        await page.until("document.readyState === 'complete'")
        await page.value(
            "{const tell = (what) => said.push(what);"
            "window.said = [];"
            f"const source = new EventSource('{MERCURE}');"
            "source.onopen = () => tell({open: true});"
            "source.onmessage = (event) => tell({id: event.lastEventId, data: event.data});"
            "source.addEventListener('noti-gap', (event) => tell({gap: event.data}));"
            "source.onerror = () => tell({error: source.readyState});}"
        )

        async def look() -> None:
            while True:
                for said in await page.value("said.splice(0)"):
                    witness.see(said)
                await trio.sleep(0.05)

        nursery.start_soon(look)
        await there.until_seen(witness)
        for crash in (True, False):
            await there.restart(crash=crash)
            await there.until_seen(witness)
        await there.finish(witness)
    assert witness.opened >= 3


class Follow:
    """Our own client, as a witness."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def opened(self, url: str, resumed_from: str | None) -> None:
        self._witness.see({"open": True})

    def event(self, event: StreamEvent) -> bool:
        kind = "data" if event.type == "message" else "gap"
        self._witness.see({kind: event.data})
        return True

    def waiting(self, pause: Reconnect) -> None:
        self._witness.see({"error": 0})


AS_IT_IS = ""
HTTP_1_1 = 'proxy_http_version 1.1; proxy_set_header Connection "";'


@pytest.mark.nginx
@pytest.mark.parametrize("settings", [AS_IT_IS, HTTP_1_1], ids=["defaults", "HTTP/1.1"])
async def test_events_pass_a_buffering_nginx_at_once_and_heartbeats_keep_it_open(
    tmp_path: Path, settings: str
) -> None:
    """Its buffering is on, as always; it hangs up after 2 s of silence, instead of 60."""
    witness = Witness("through nginx")
    impatient = f"proxy_read_timeout 2s; {settings}"
    async with (
        site(tmp_path, "--sse-heartbeat-s", "1") as (there, nursery),
        nginx(tmp_path / "nginx", there.node.http, impatient) as (host, port),
    ):
        url = f"http://{host}:{port}{MERCURE}"
        tls = ssl.create_default_context()
        nursery.start_soon(
            partial(read_stream, Reconnection(url, Random(1)), Follow(witness), tls=tls)
        )
        await there.until_seen(witness)
        await there.finish(witness)
        # All is quiet now, for longer than nginx waits.
        await trio.sleep(3)
        assert (witness.opened, witness.errors) == (1, [])
