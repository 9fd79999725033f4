"""The rehearsal: install, roll all pods, scale down and up; under load, nothing lost or twice."""

import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from noti.asyncio_loop import AsyncioLoop
from tests.interop.rehearsal import names, tls_release
from tests.interop.rehearsal.apiserver import ClusterApi
from tests.interop.rehearsal.chart import Rendered, render
from tests.interop.rehearsal.controllers import API_ADDRESS, Controllers
from tests.interop.rehearsal.machines import GATEWAY, Network
from tests.interop.rehearsal.proxy import Proxy
from tests.interop.traffic import CATEGORY, MERCURE, Publisher, Subscriber
from tests.publishing.nats.nats_server import NatsServer

BROWSERS = 50
VALUES: dict[str, Any] = {
    "anonymous": True,
    "ingress": {"enabled": True},
    "config": {"history_size": 10_000},
    "minReadySeconds": 1,
    "termination": {"drainSeconds": 2},
    "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
}
"""The chart's own values but for tokens, which its browsers lack, and for times, which would make
three stops last two minutes."""

STEPS = ("plain", "understood", "sent", "required")
"""Of gossip's encryption, of pods that had no key: three upgrades. The short run makes the last."""

SETTLE_S_MAX = 30.0
NATS_PORT, PROXY_PORT = 4222, 80


class Rehearsal:
    """All that is there in one run."""

    def __init__(
        self,
        controllers: Controllers,
        api: ClusterApi,
        proxy: Proxy,
        publisher: Publisher,
        say: Callable[[str], None],
    ) -> None:
        self.controllers = controllers
        self.api = api
        self.proxy = proxy
        self.publisher = publisher
        self.browsers = [
            Subscriber(CATEGORY if number % 2 else MERCURE, [proxy.address])
            for number in range(BROWSERS)
        ]
        self.say = say
        self._spec = controllers.stateful_set["spec"]
        self._min_ready_s: float = self._spec["minReadySeconds"]

    async def install(self, nursery: trio.Nursery) -> None:
        """Start all pods at once, as podManagementPolicy says, and then the load."""
        assert self._spec["podManagementPolicy"] == "Parallel"
        await self._start(range(self._spec["replicas"]), operator=True)
        self.say(f"pods are ready: {self._addresses()}")
        await self._until(self._endpoints, f"{self.proxy.service} has pods behind it")
        for browser in self.browsers:
            nursery.start_soon(browser.run)
        await self._until(lambda: all(one.opened for one in self.browsers), "all are connected")
        nursery.start_soon(self.publisher.run)
        await self.until_all_have_more()
        self.say(f"{len(self.browsers)} browsers read events through {self.proxy.service}")

    async def upgrade(self, rendered: Rendered) -> None:
        """Replace what is installed by this, and every pod."""
        self.controllers.take(rendered)
        self.proxy.read(rendered.one("Ingress"))
        self.controllers.changed()
        async with trio.open_nursery() as rolling:
            rolling.start_soon(self.controllers.roll_deployment)
            await self.roll()

    async def roll(self) -> None:
        """Replace every pod, the highest number first, each when the one before is available."""
        assert self._spec["updateStrategy"]["type"] == "RollingUpdate"
        for number in sorted(self.controllers.nodes, reverse=True):
            old, begun = self.controllers.nodes[number], time.monotonic()
            led = (await self.controllers.status(old))["role"] == "leader"
            pre_stop_s = await self.controllers.stop_node(number)
            stopped_s = time.monotonic() - begun
            new = await self.controllers.start_node(number)
            assert new.address != old.address
            await self.controllers.until_available(new, self._min_ready_s)
            available_s = time.monotonic() - begun - stopped_s
            await self.until_all_have_more()
            self.say(
                f"{new.name}{' (leader)' if led else ''}: stopped in {stopped_s:.1f} s (preStop "
                f"{pre_stop_s:.1f}), {old.address} -> {new.address}, available {available_s:.1f} s "
                "later"
            )

    async def scale_down(self, replicas: int) -> None:
        """Remove the pods above a number at once; each gives up its vote in its preStop."""
        self.api.scale(self.controllers.name, replicas)
        leaving = [number for number in self.controllers.nodes if number >= replicas]
        gone = [self.controllers.nodes[number] for number in leaving]
        begun = time.monotonic()
        async with trio.open_nursery() as stopping:
            for number in leaving:
                stopping.start_soon(self.controllers.stop_node, number)
        scaled_s = time.monotonic() - begun
        for pod in gone:
            assert "the node does not vote any more" in pod.log_text(), pod.last_lines()
        await self.until_all_have_more()
        await self._until_voters(replicas)
        self.say(f"scaled down to {replicas} in {scaled_s:.1f} s; {replicas} vote, events go on")

    async def scale_up(self, replicas: int) -> None:
        """Add pods, which come back with their disks, and vote again."""
        self.api.scale(self.controllers.name, replicas)
        begun = time.monotonic()
        await self._start(range(len(self.controllers.nodes), replicas))
        await self._until_voters(replicas)
        await self.until_all_have_more()
        self.say(f"scaled up to {replicas} in {time.monotonic() - begun:.1f} s; {replicas} vote")

    async def _start(self, numbers: Iterable[int], *, operator: bool = False) -> None:
        async with trio.open_nursery() as starting:
            if operator:
                starting.start_soon(self.controllers.start_deployment)
            for number in numbers:
                starting.start_soon(self.controllers.start_node, number)
        for pod in self.controllers.past:
            if not pod.terminating:
                await self.controllers.until_available(pod, self._min_ready_s)

    async def _until_voters(self, wanted: int) -> None:
        """Wait until every node says that so many vote."""
        with trio.fail_after(SETTLE_S_MAX):
            while True:
                nodes = list(self.controllers.nodes.values())
                reports = [await self.controllers.status(pod) for pod in nodes]
                if all(report["voters"] == wanted for report in reports):
                    return
                await trio.sleep(0.1)

    def _endpoints(self) -> bool:
        return bool(self.controllers.endpoints(self.proxy.service, self.proxy.service_port))

    async def until_all_have_more(self) -> None:
        """Wait until every browser has what was published by now, and some more."""
        wanted = self.publisher.acknowledged + 25
        await self._until(
            lambda: all(one.last >= wanted for one in self.browsers), f"all have event {wanted}"
        )

    async def finish(self) -> None:
        """Stop publishing; each browser must have seen each event once, in order."""
        with trio.fail_after(SETTLE_S_MAX):
            published = await self.publisher.stop()
        with trio.move_on_after(SETTLE_S_MAX):
            while any(one.last < published for one in self.browsers):  # noqa: ASYNC110
                await trio.sleep(0.01)
        problems = [problem for one in self.browsers if (problem := one.problem(published))]
        problems += [problem for pod in self.controllers.past for problem in pod.problems]
        problems += [f"forbidden by the Role: {what}" for what in self.api.forbidden]
        assert not problems, "\n".join(problems)
        waits_s = [
            max(later.at - earlier.at for earlier, later in pairwise(one.deliveries))
            for one in self.browsers
        ]
        connections = sum(one.opened for one in self.browsers)
        self.say(
            f"{published} events, each once, in order, at each of {len(self.browsers)} browsers on "
            f"{connections} connections; longest wait for the next event {max(waits_s):.1f} s "
            f"(median of the browsers {statistics.median(waits_s):.1f} s)"
        )

    def tell(self) -> None:
        """Say what a person needs to find out what went wrong."""
        for one in self.browsers:
            if problem := one.problem(self.publisher.acknowledged):
                self.say(problem)
        self.say(f"--- proxy\n{self.proxy.last_lines()}")
        for pod in self.controllers.past:
            self.say(f"--- {pod.name} {pod.address} {pod.problems}\n{pod.last_lines()}")

    def _addresses(self) -> str:
        return ", ".join(f"{pod.name} {pod.address}" for pod in self.controllers.past)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(SETTLE_S_MAX):
            while not condition():  # noqa: ASYNC110
                await trio.sleep(0.01)
            return
        raise AssertionError(f"waited {SETTLE_S_MAX:g} s in vain until {what}")


@asynccontextmanager
async def prepared(
    rendered: Rendered, nginx: Path, directory: Path, say: Callable[[str], None]
) -> AsyncIterator[tuple[Rehearsal, trio.Nursery]]:
    """Make everything but the pods. In namespaces of its own (`namespaces.py`)."""
    network = Network()
    await network.open()
    nats = NatsServer(directory / "nats", NATS_PORT, host=GATEWAY)
    api = ClusterApi(rendered, directory, API_ADDRESS)
    async with trio.open_nursery() as nursery:
        asyncio_loop = AsyncioLoop()
        await nursery.start(asyncio_loop.run)
        await nursery.start(api.run)
        await nats.start()
        try:
            controllers = Controllers(rendered, network, api, directory, nursery)
            await nursery.start(names.serve, (GATEWAY, 53), controllers.addresses_of)
            address = (GATEWAY, PROXY_PORT)
            proxy = Proxy(nginx, directory, address, rendered.one("Ingress"))
            await nursery.start(proxy.run)
            controllers.changed = partial(_follow, proxy, controllers)
            publisher = Publisher(asyncio_loop, nats.url)
            yield Rehearsal(controllers, api, proxy, publisher, say), nursery
            nursery.cancel_scope.cancel()
        finally:
            await nats.kill()


def _follow(proxy: Proxy, controllers: Controllers) -> None:
    proxy.send_to(controllers.endpoints(proxy.service, proxy.service_port))


async def rehearse(
    helm: Path,
    nginx: Path,
    directory: Path,
    say: Callable[[str], None],
    what: str = "",
) -> None:
    """Run a whole rehearsal; raises `AssertionError` when a promise is broken.

    `what` is `keys`, `tls`, or nothing for the short one.
    """
    rendered = await trio.to_thread.run_sync(render, helm, VALUES)
    async with prepared(rendered, nginx, directory, say) as (rehearsal, nursery):
        try:
            if what == "tls":
                await rehearsal.install(nursery)
                await _switch_tls(rehearsal, helm, rendered)
            else:
                steps = STEPS if what == "keys" else STEPS[-2:]
                await _give_keys(rehearsal, steps, nursery)
                await rehearsal.scale_down(1)
                await rehearsal.scale_up(3)
            await rehearsal.finish()
        except BaseException as error:
            if not isinstance(error, trio.Cancelled):
                rehearsal.tell()
            raise


async def _give_keys(rehearsal: Rehearsal, steps: Sequence[str], nursery: trio.Nursery) -> None:
    """Begin with pods of the first step, and roll them to each of the others."""
    rehearsal.controllers.set_gossip(steps[0])
    await rehearsal.install(nursery)
    for step in steps[1:]:
        rehearsal.controllers.set_gossip(step)
        rehearsal.say(f"gossip.encryption={step}")
        await rehearsal.roll()


async def _switch_tls(rehearsal: Rehearsal, helm: Path, rendered: Rendered) -> None:
    """Upgrade to TLS between nodes and for browsers, and back; the chart takes its steps itself."""
    names = [pod.name for pod in rehearsal.controllers.nodes.values()]
    secrets = tls_release.secrets(names)
    for mode, values in tls_release.UPGRADES:
        rendered = await trio.to_thread.run_sync(render, helm, VALUES | values, rendered)
        assert rendered.tls_modes == {mode}
        rehearsal.say(f"tls.mode={mode}, httpTls.mode={mode}")
        await rehearsal.upgrade(Rendered([*rendered.objects, *secrets]))
