"""Three nodes, a NATS server, a publisher of numbered events, and browsers that count."""

import signal
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from noti.asyncio_loop import AsyncioLoop
from tests.interop.processes import PROGRAM, NodeProcess, written
from tests.interop.traffic import CATEGORY, MERCURE, Publisher, Subscriber
from tests.ports import free_port
from tests.publishing.nats.nats_server import NatsServer

SETTLE_S_MAX = 20.0
"""No condition takes longer than this, even on a busy machine; nothing is measured with it."""
HISTORY_SIZE = 10_000
"""A newcomer is shown everything, also when a test takes minutes on a slow machine."""


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that nobody announces: another process's doing."""
    with trio.move_on_after(SETTLE_S_MAX):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)
        return
    raise AssertionError(f"waited {SETTLE_S_MAX:g} s in vain until {what}")


class Cluster:
    """A cluster under load, and what may be done to it."""

    def __init__(
        self,
        directory: Path,
        asyncio_loop: AsyncioLoop,
        nursery: trio.Nursery,
        flags_of: Callable[[str], Sequence[str]],
        program: Sequence[str],
    ) -> None:
        """Prepare; nothing runs before `start`."""
        self._flags_of = flags_of
        self.nats = NatsServer(directory / "nats", free_port())
        self.nodes = [NodeProcess(f"node{number}", directory) for number in (1, 2, 3)]
        for node in self.nodes:
            node.program = program
        self.publisher = Publisher(asyncio_loop, self.nats.url)
        self.subscribers = [
            Subscriber(target, [other.http for other in self._beginning_with(node)])
            for node in self.nodes
            for target in (CATEGORY, MERCURE)
        ]
        self._nursery = nursery

    def _beginning_with(self, node: NodeProcess) -> list[NodeProcess]:
        place = self.nodes.index(node)
        return self.nodes[place:] + self.nodes[:place]

    @property
    def join(self) -> list[str]:
        """The flags that name these nodes as seeds."""
        return [part for node in self.nodes for part in ("--join", written(node.gossip))]

    async def start(self) -> None:
        """Start everything; returns when events have reached every browser."""
        await self.nats.start()
        self._start_nodes()
        await self.leader()
        for subscriber in self.subscribers:
            self._nursery.start_soon(subscriber.run)
        await until(lambda: all(one.opened for one in self.subscribers), "all browsers connect")
        self._nursery.start_soon(self.publisher.run)
        await self.until_everybody_has(10)

    def _start_nodes(self) -> None:
        for node in self.nodes:
            self.start_node(node)

    def start_node(self, node: NodeProcess) -> None:
        """Start a node with the flags of this cluster, and the program that it has by now."""
        settings = ["--bootstrap-expect", "3", "--history-size", str(HISTORY_SIZE)]
        own = self._flags_of(node.name)
        node.start(*self.join, *settings, "--nats-url", self.nats.url, *own)

    async def kill_all(self) -> None:
        """Kill all nodes at once."""
        for node in self.nodes:
            node.signal(signal.SIGKILL)
        for node in self.nodes:
            await node.wait()

    def return_elsewhere(self) -> None:
        """Start the dead nodes with their data and other addresses, of which browsers are told."""
        for node in self.nodes:
            node.move()
        for number, subscriber in enumerate(self.subscribers):
            home = self.nodes[number * len(self.nodes) // len(self.subscribers)]
            subscriber.nodes = [node.http for node in self._beginning_with(home)]
        self._start_nodes()

    async def until_these_vote(self, nodes: Collection[NodeProcess]) -> None:
        """Wait until each of these nodes says that they, and nobody else, vote."""
        names = {node.name for node in nodes}
        with trio.fail_after(SETTLE_S_MAX):
            while True:
                reports = [await node.status() for node in nodes]
                views = [
                    {m["name"] for m in report["members"] if m["role"] in ("leader", "follower")}
                    for report in reports
                    if report is not None and report["voters"] == len(nodes)
                ]
                if views == [names] * len(nodes):
                    return
                await trio.sleep(0.05)

    async def leader(self) -> NodeProcess:
        """Wait until all nodes agree who leads and the leader reads from NATS; return it."""
        with trio.fail_after(SETTLE_S_MAX):
            while True:
                reports = [await node.status() for node in self.nodes]
                for node, report in zip(self.nodes, reports, strict=True):
                    if report is None or report["role"] != "leader":
                        continue
                    agreed = all(other and other["leader"] == node.name for other in reports)
                    if agreed and report["source"]["state"] == "reading":
                        return node
                await trio.sleep(0.02)

    async def until_source_is(self, state: str, node: NodeProcess) -> None:
        """Wait until a node says this about its source."""
        with trio.fail_after(SETTLE_S_MAX):
            while True:
                report = await node.status()
                if report is not None and report["source"]["state"] == state:
                    return
                await trio.sleep(0.02)

    async def reports(self) -> list[dict[str, Any]]:
        """Return the status of every node, once it is up."""
        return [await node.until_up() for node in self.nodes]

    def others(self, node: NodeProcess) -> list[NodeProcess]:
        """Return the nodes besides this one."""
        return [other for other in self.nodes if other is not node]

    async def until_everybody_has(self, number: int) -> None:
        """Wait until every browser has seen this number."""
        await until(
            lambda: all(one.last >= number for one in self.subscribers),
            f"every browser has {number}: {[(str(one), one.last) for one in self.subscribers]}",
        )

    async def until_caught_up(self, node: NodeProcess) -> None:
        """Wait until a node shows what was published when this was called."""
        published = self.publisher.acknowledged
        with trio.fail_after(SETTLE_S_MAX):
            while True:
                status = await node.until_up()
                if status["store"]["last_seq"] >= published:
                    return
                await trio.sleep(0.02)

    async def recovery_s(self, since: float, nodes: Collection[NodeProcess]) -> float:
        """Wait for the next new event at one of these nodes; return the seconds since `since`.

        New is an event that was published after `since`.
        """
        await until(lambda: bool(self._new(since, nodes)), "a new event is delivered")
        return min(self._new(since, nodes)) - since

    def _new(self, since: float, nodes: Collection[NodeProcess]) -> list[float]:
        """Return when the new events came."""
        begun = self.publisher.begun
        return [at for at, number in self._seen(since, nodes) if begun[number] > since]

    def _seen(self, since: float, nodes: Collection[NodeProcess]) -> list[tuple[float, int]]:
        """Return the moments and numbers of what these nodes delivered after `since`."""
        there = {node.http for node in nodes}
        return sorted(
            (delivery.at, delivery.number)
            for one in self.subscribers
            for delivery in one.deliveries
            if delivery.at > since and delivery.node in there
        )

    def longest_silence_s(self, since: float, nodes: Collection[NodeProcess]) -> float:
        """Return the longest time without any event at these nodes, from `since` until now."""
        moments = [at for at, _ in self._seen(since, nodes)]
        steps = zip([since, *moments], [*moments, time.monotonic()], strict=True)
        return max(later - earlier for earlier, later in steps)

    async def finish(self) -> None:
        """Stop publishing; then each browser must have seen each number once, in order.

        So must one that comes now, to any of the nodes, and asks for all that there is.
        """
        with trio.fail_after(SETTLE_S_MAX):
            published = await self.publisher.stop()
        latecomers = [Subscriber(MERCURE, [node.http], "earliest") for node in self.nodes]
        for latecomer in latecomers:
            self._nursery.start_soon(latecomer.run)
        everybody = [*self.subscribers, *latecomers]
        with trio.move_on_after(SETTLE_S_MAX):
            while any(one.last < published for one in everybody):  # noqa: ASYNC110
                await trio.sleep(0.005)
        problems = [problem for one in everybody if (problem := one.problem(published))]
        assert not problems, "\n".join(problems)

    def tell(self) -> None:
        """Print what a person needs to find out what went wrong."""
        print(f"published and acknowledged: {self.publisher.acknowledged}")
        for one in self.subscribers:
            print(one.problem(self.publisher.acknowledged) or f"{one}: all is well")
        for node in self.nodes:
            print(f"--- {node.name}\n{node.last_lines()}")


@asynccontextmanager
async def running_cluster(
    directory: Path,
    flags_of: Callable[[str], Sequence[str]] = lambda _: (),
    program: Sequence[str] = PROGRAM,
) -> AsyncIterator[Cluster]:
    """Run a cluster under load; whatever happens, nothing of it is left afterwards.

    `flags_of` gives the flags that only the node of a name gets, `program` is what they run.
    """
    async with trio.open_nursery() as outer:
        asyncio_loop = AsyncioLoop()
        await outer.start(asyncio_loop.run)
        async with trio.open_nursery() as nursery:
            cluster = Cluster(directory, asyncio_loop, nursery, flags_of, program)
            try:
                await cluster.start()
                yield cluster
            except BaseException:
                cluster.tell()
                raise
            finally:
                with trio.CancelScope(shield=True):
                    for node in cluster.nodes:
                        await node.destroy()
                    await cluster.nats.kill()
            nursery.cancel_scope.cancel()
        outer.cancel_scope.cancel()
