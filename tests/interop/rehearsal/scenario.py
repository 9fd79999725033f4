"""The rehearsal: install, roll all pods, scale down; under load, with nothing lost or twice."""

import secrets
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio
import trustme

from noti.rpc.aio import Island
from tests.cli.kubernetes_api import StatefulSetApi
from tests.ingest.nats_server import NatsServer
from tests.interop.rehearsal import names
from tests.interop.rehearsal.chart import NAMESPACE, Rendered, render
from tests.interop.rehearsal.machines import GATEWAY, Network
from tests.interop.rehearsal.proxy import Proxy
from tests.interop.rehearsal.statefulset import StatefulSet
from tests.interop.traffic import CATEGORY, MERCURE, Publisher, Subscriber

BROWSERS = 50
VALUES: dict[str, Any] = {
    "ingress": {"enabled": True},
    "config": {"history_size": 10_000},
    "minReadySeconds": 2,
    "termination": {"drainSeconds": 3},
    "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
}
"""The chart's own values but for times, which would make three stops last two minutes."""

SETTLE_S_MAX = 30.0
NATS_PORT, PROXY_PORT, API_PORT = 4222, 80, 6443


class Rehearsal:
    """All that is there in one run."""

    def __init__(
        self,
        rendered: Rendered,
        pods: StatefulSet,
        api: StatefulSetApi,
        proxy: Proxy,
        publisher: Publisher,
        say: Callable[[str], None],
    ) -> None:
        self.pods = pods
        self.api = api
        self.proxy = proxy
        self.publisher = publisher
        self.browsers = [
            Subscriber(CATEGORY if number % 2 else MERCURE, [proxy.address])
            for number in range(BROWSERS)
        ]
        self.say = say
        self._rendered = rendered

    async def install(self, nursery: trio.Nursery) -> None:
        """Start all pods at once, as podManagementPolicy says, and then the load."""
        assert self.pods.manifest["spec"]["podManagementPolicy"] == "Parallel"
        async with trio.open_nursery() as starting:
            for number in range(self.pods.replicas):
                starting.start_soon(self.pods.start, number)
        for pod in self.pods.pods.values():
            await self.pods.until_available(pod)
        self.say(f"{len(self.pods.pods)} pods are ready: {self._addresses()}")
        for browser in self.browsers:
            nursery.start_soon(browser.run)
        await self._until(lambda: all(one.opened for one in self.browsers), "all are connected")
        nursery.start_soon(self.publisher.run)
        await self.until_all_have_more()
        self.say(f"{len(self.browsers)} browsers read events through {self.proxy.service}")

    async def roll(self) -> None:
        """Replace every pod, the highest number first, each when the one before is available."""
        assert self.pods.manifest["spec"]["updateStrategy"]["type"] == "RollingUpdate"
        for number in sorted(self.pods.pods, reverse=True):
            old, begun = self.pods.pods[number], time.monotonic()
            led = (await self.pods.status(old) or {}).get("role") == "leader"
            pre_stop_s = await self.pods.stop(number)
            stopped_s = time.monotonic() - begun
            new = await self.pods.start(number)
            assert new.address != old.address
            await self.pods.until_available(new)
            await self.until_all_have_more()
            self.say(
                f"{new.name}{' (leader)' if led else ''}: stopped in {stopped_s:.1f} s (preStop "
                f"{pre_stop_s:.1f}), {old.address} -> {new.address}, available after "
                f"{time.monotonic() - begun - stopped_s:.1f} s"
            )

    async def scale_down(self, replicas: int) -> None:
        """Remove the pods above a number at once; each gives up its vote in its preStop."""
        self.api.spec = {"replicas": replicas}
        leaving = [number for number in self.pods.pods if number >= replicas]
        gone = [self.pods.pods[number] for number in leaving]
        begun = time.monotonic()
        async with trio.open_nursery() as stopping:
            for number in leaving:
                stopping.start_soon(self.pods.stop, number)
        for pod in gone:
            assert "the node votes no more" in pod.log_text(), pod.last_lines()
        await self.until_all_have_more()
        for pod in self.pods.pods.values():
            status = await self.pods.status(pod)
            assert status is not None
            assert status["voters"] == replicas, status
        self.say(
            f"scaled down to {replicas} in {time.monotonic() - begun:.1f} s: "
            f"{replicas} of the nodes vote, and events go on"
        )

    async def until_all_have_more(self) -> None:
        """Wait until every browser has what was published by now, and some more."""
        wanted = self.publisher.acknowledged + 50
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
        problems += [problem for pod in self.pods.past for problem in pod.problems]
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
        for pod in self.pods.past:
            self.say(f"--- {pod.name} {pod.address} {pod.problems}\n{pod.last_lines()}")

    def _addresses(self) -> str:
        return ", ".join(f"{pod.name} {pod.address}" for pod in self.pods.pods.values())

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(SETTLE_S_MAX):
            while not condition():  # noqa: ASYNC110
                await trio.sleep(0.01)
            return
        raise AssertionError(f"waited {SETTLE_S_MAX:g} s in vain until {what}")


@asynccontextmanager
async def prepared(
    helm: Path, nginx: Path, directory: Path, say: Callable[[str], None]
) -> AsyncIterator[tuple[Rehearsal, trio.Nursery]]:
    """Make everything but the pods. In namespaces of its own (`namespaces.py`)."""
    rendered = await trio.to_thread.run_sync(render, helm, VALUES)
    network = Network()
    await network.open()
    nats = NatsServer(directory / "nats", NATS_PORT, host=GATEWAY)
    ca = trustme.CA()
    with ExitStack() as served:
        api = StatefulSetApi(
            namespace=NAMESPACE,
            name=rendered.one("StatefulSet")["metadata"]["name"],
            token=secrets.token_hex(),
        )
        _let_in(rendered, api)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(GATEWAY).configure_cert(context)
        served.enter_context(api.serving(GATEWAY, API_PORT, context))
        async with trio.open_nursery() as nursery:
            island = Island()
            await nursery.start(island.run)
            await nats.start()
            try:
                pods = StatefulSet(
                    rendered,
                    network,
                    directory,
                    _account(directory, api, ca),
                    (GATEWAY, API_PORT),
                    nursery,
                )
                await nursery.start(names.serve, (GATEWAY, 53), pods.addresses_of)
                address = (GATEWAY, PROXY_PORT)
                proxy = Proxy(nginx, directory, address, rendered.one("Ingress"))
                await nursery.start(proxy.run)
                endpoints = partial(pods.endpoints, proxy.service, proxy.service_port)
                pods.watch = lambda: proxy.send_to(endpoints())
                nursery.start_soon(pods.keep_labels)
                publisher = Publisher(island, nats.url)
                yield Rehearsal(rendered, pods, api, proxy, publisher, say), nursery
                nursery.cancel_scope.cancel()
            finally:
                await nats.kill()


def _let_in(rendered: Rendered, api: StatefulSetApi) -> None:
    """Have the API refuse what the rendered Role does not allow."""
    account = rendered.one("StatefulSet")["spec"]["template"]["spec"]["serviceAccountName"]
    if not rendered.allows(account, "get", "apps", "statefulsets", api.name):
        api.failing = 403


def _account(directory: Path, api: StatefulSetApi, ca: trustme.CA) -> Path:
    """Write what the kubelet mounts into every pod that may ask the API."""
    account = directory / "account"
    account.mkdir()
    (account / "token").write_text(api.token)
    (account / "namespace").write_text(api.namespace)
    ca.cert_pem.write_to_path(str(account / "ca.crt"))
    return account


async def rehearse(helm: Path, nginx: Path, directory: Path, say: Callable[[str], None]) -> None:
    """Run the whole rehearsal; raises `AssertionError` when a promise is broken."""
    async with prepared(helm, nginx, directory, say) as (rehearsal, nursery):
        try:
            await rehearsal.install(nursery)
            await rehearsal.roll()
            await rehearsal.scale_down(1)
            await rehearsal.finish()
        except BaseException as error:
            if not isinstance(error, trio.Cancelled):
                rehearsal.tell()
            raise
