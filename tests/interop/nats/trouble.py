"""Three nodes that read numbered events at full speed, while leaders and NATS servers die."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio

from noti.asyncio_loop import AsyncioLoop
from tests.interop.nats.nats_cluster import NatsCluster
from tests.interop.nats.numbers import STREAM, NumberPublisher
from tests.interop.processes import NodeProcess, written
from tests.interop.traffic import MERCURE, Subscriber

Retention = Literal["workqueue", "interest", "limits"]

KILL_EVERY_S = 2.0
DOWN_S = 0.3
"""How long a NATS server stays away."""
PROGRESS_S_MAX = 40.0
"""Nothing moves for so long: it never will. A node on a busy machine takes 15 s to start."""
HISTORY_SIZE = 100_000
"""Several times what a browser can miss, see `numbers.LEAD_MAX`."""


@dataclass(frozen=True)
class Plan:
    """What is run."""

    retention: Retention
    servers: int
    seconds: float
    nats_restarts: int


@dataclass
class Done:
    """What was done to it, and what came of it."""

    leaders_killed: int = 0
    killed_idle: int = 0
    nats_restarted: int = 0
    steps_down: int = 0
    published: int = 0
    uncertain: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.published} events in {self.seconds:.0f} s, {self.uncertain} of them perhaps "
            f"stored twice; {self.leaders_killed} leaders killed, {self.killed_idle} of them idle; "
            f"NATS restarted {self.nats_restarted} times, {self.steps_down} steps down"
        )


class Stage:
    """NATS, nodes, the publisher and browsers."""

    def __init__(self, directory: Path, asyncio_loop: AsyncioLoop, plan: Plan) -> None:
        """Prepare; nothing runs before `start`."""
        self.plan = plan
        self.done = Done()
        self.nats = NatsCluster(directory, plan.servers)
        self.nodes = [NodeProcess(f"node{number}", directory) for number in (1, 2, 3)]
        self.publisher = NumberPublisher(asyncio_loop, self.nats.urls, self._seen_by_all)
        self.browsers = [
            Subscriber(MERCURE, [node.http for node in self.nodes[place:] + self.nodes[:place]])
            for place in range(len(self.nodes))
        ]

    async def start(self, nursery: trio.Nursery) -> None:
        """Start everything; returns when events have reached every browser."""
        await self.nats.start()
        await self.publisher.make_stream(self.plan.retention, self.plan.servers)
        for node in self.nodes:
            node.start(
                *(part for one in self.nodes for part in ("--join", written(one.gossip))),
                *("--bootstrap-expect", "3", "--history-size", str(HISTORY_SIZE)),
                *("--nats-url", self.nats.url, "--nats-stream", STREAM),
            )
        # An interest stream keeps nothing that nobody waits for.
        await self._until_somebody_reads()
        for browser in self.browsers:
            nursery.start_soon(browser.run)
        nursery.start_soon(self.publisher.run)
        await self._until_all_have(1000)

    async def kill_leaders(self, until: float) -> None:
        """Kill whoever leads every `KILL_EVERY_S`, amid events, and start it again."""
        killed, before = time.monotonic(), 0
        while time.monotonic() < until:
            await trio.sleep(0.02)
            leader, last = await self._leader()
            idle, before = last == before, last
            since_s = time.monotonic() - killed
            if leader is None or since_s < KILL_EVERY_S or (idle and since_s < 2 * KILL_EVERY_S):
                continue
            await leader.kill()
            leader.start()
            killed = time.monotonic()
            self.done.leaders_killed += 1
            self.done.killed_idle += idle

    async def restart_nats(self, until: float) -> None:
        """Restart servers, one after the other: crash, stop, and lame duck where others remain."""
        pause_s = (until - time.monotonic()) / (self.plan.nats_restarts + 1)
        for number in range(self.plan.nats_restarts):
            await trio.sleep(pause_s)
            server = self.nats.servers[number % len(self.nats.servers)]
            match number % 3:
                case 0:
                    await server.kill()
                case 1:
                    await self.nats.stop(server)
                case _:
                    self.nats.begin_lame_duck(server)
                    await trio.sleep(DOWN_S)
                    await server.kill()
            await trio.sleep(DOWN_S)
            await server.start()
            self.done.nats_restarted += 1

    async def step_down(self, until: float) -> None:
        """Have the leaders of the stream and of its consumers step down, again and again."""
        while time.monotonic() < until:
            self.done.steps_down += await self.publisher.step_down()
            await trio.sleep(KILL_EVERY_S)

    async def finish(self, nursery: trio.Nursery) -> None:
        """Stop publishing; then all browsers have seen all numbers, and NATS holds no more work.

        So has whoever comes now, to any node, and asks for all that there is.
        """
        await self.publisher.stop()
        self.done.published = self.publisher.acknowledged
        self.done.uncertain = len(self.publisher.uncertain)
        await self._until_all_have(self.done.published)
        problems = [problem for one in self.browsers if (problem := self._problem(one))]
        assert not problems, "\n".join(problems)
        seen = numbers_of(self.browsers[0])
        latecomers = [Subscriber(MERCURE, [node.http], "earliest") for node in self.nodes]
        for one in latecomers:
            nursery.start_soon(one.run)
        await until_still(
            lambda: all(one.last == seen[-1] for one in latecomers),
            lambda: [len(one.deliveries) for one in latecomers],
            "latecomers have what browsers have",
        )
        for one in latecomers:
            assert numbers_of(one) == seen[-len(one.deliveries) :], "all nodes have one history"
        if self.plan.retention != "limits":
            await self._until_nats_is_empty()

    def tell(self) -> None:
        """Print what a person needs to find out what went wrong."""
        print(f"{self.plan}: {self.done}; {self.publisher.acknowledged} stored")
        for one in self.browsers:
            print(f"{one}: {len(one.deliveries)} events, {one.gaps}, {one.refusals}")
        for node in self.nodes:
            print(f"--- {node.name}\n{node.last_lines()}")

    async def destroy(self) -> None:
        """Leave no process."""
        for node in self.nodes:
            await node.destroy()
        await self.nats.destroy()

    def _seen_by_all(self) -> int:
        return min(len(one.deliveries) for one in self.browsers)

    def _problem(self, one: Subscriber) -> str | None:
        problem = self.publisher.problem(numbers_of(one))
        if problem is None and not one.gaps and not one.refusals:
            return None
        return f"{one}: {problem}; gaps {one.gaps}; refusals {one.refusals}"

    async def _leader(self) -> tuple[NodeProcess | None, int]:
        """Return who leads, if somebody says so now, and how many events it has."""
        for node in self.nodes:
            report = await node.status()
            if report is not None and report["role"] == "leader":
                return node, report["store"]["last_seq"]
        return None, 0

    async def _until_somebody_reads(self) -> None:
        with trio.fail_after(PROGRESS_S_MAX):
            while True:
                for node in self.nodes:
                    report = await node.status()
                    if report is not None and report["source"]["state"] == "reading":
                        return
                await trio.sleep(0.05)

    async def _until_all_have(self, count: int) -> None:
        await until_still(
            lambda: self._seen_by_all() >= count,
            lambda: [len(one.deliveries) for one in self.browsers],
            f"all browsers have {count} events",
        )

    async def _until_nats_is_empty(self) -> None:
        with trio.fail_after(PROGRESS_S_MAX):
            while (info := await self.publisher.stream_info()).state.messages > 0:
                print(f"{info.state.messages} messages are left")
                await trio.sleep(0.5)


def numbers_of(browser: Subscriber) -> list[int]:
    """Return what it has seen."""
    return [delivery.number for delivery in browser.deliveries]


async def until_still(
    condition: Callable[[], bool], measure: Callable[[], object], what: str
) -> None:
    """Wait for a condition as long as something changes."""
    last, since = measure(), time.monotonic()
    while not condition():
        if (now := measure()) != last:
            last, since = now, time.monotonic()
        assert time.monotonic() < since + PROGRESS_S_MAX, f"in vain until {what}: {last}"
        await trio.sleep(0.01)


async def run(directory: Path, plan: Plan) -> Done:
    """Run a plan; whatever happens, nothing of it is left afterwards."""
    async with trio.open_nursery() as outer:
        asyncio_loop = AsyncioLoop()
        await outer.start(asyncio_loop.run)
        async with trio.open_nursery() as nursery:
            stage = Stage(directory, asyncio_loop, plan)
            try:
                await stage.start(nursery)
                began = time.monotonic()
                async with trio.open_nursery() as troubles:
                    troubles.start_soon(stage.kill_leaders, began + plan.seconds)
                    troubles.start_soon(stage.restart_nats, began + plan.seconds)
                    if plan.servers > 1:
                        troubles.start_soon(stage.step_down, began + plan.seconds)
                await stage.finish(nursery)
                stage.done.seconds = time.monotonic() - began
            except BaseException:
                stage.tell()
                raise
            finally:
                with trio.CancelScope(shield=True):
                    await stage.destroy()
            nursery.cancel_scope.cancel()
        outer.cancel_scope.cancel()
    return stage.done
