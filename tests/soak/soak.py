"""One soak, from the first start to the verdict.

No process is left, whatever happens.
"""

import json
import secrets
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h11
import trio

from noti.asyncio_loop import AsyncioLoop
from noti.authorization.signing import TokenDraft, signed_token
from tests.certificates.authority import Wanted, authority, issue
from tests.http.stage import Client
from tests.ports import free_port
from tests.publishing.nats.nats_server import NatsServer
from tests.soak import ledger
from tests.soak.browsers import Browsers
from tests.soak.checks import Observed
from tests.soak.cluster import SoakCluster, SoakNode
from tests.soak.connections import HOST, trusting
from tests.soak.faults import Trouble
from tests.soak.jetstream import (
    CONFIG,
    JOBS,
    MIXED,
    AtTheEnd,
    JetStreamFeed,
    look_aio,
    make_stream_aio,
    retention_of,
)
from tests.soak.network import GATEWAY, Machine, Network, small_disk
from tests.soak.publishers import Feed, HttpFeed, RpcFeed
from tests.soak.schedule import Episode, Size, episodes, size_of
from tests.soak.setups import Setup, labels_of, setups_of
from tests.soak.watch import Watch

IDLE = 4
"""Browsers that never read."""
START_S_MAX = 60.0
ANSWER_S_MAX = 5.0
SUBSCRIPTIONS_PATH = "/.well-known/mercure/subscriptions"
SETTLE_S_MAX = 180.0
"""When the publishers have stopped, every browser has everything within this, also after a burst
on a slow machine."""


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    minutes: float
    seed: int
    nodes: int
    clients: int
    history: int
    """Events of history; 0 for as many as it takes for a gap never to be told."""
    namespaces: bool

    @property
    def size(self) -> Size:
        short = bool(self.history)
        return size_of(
            self.minutes,
            self.nodes,
            namespaces=self.namespaces,
            short_history=short,
        )

    @property
    def setups(self) -> list[Setup]:
        """How each node is set up."""
        return setups_of(self.seed, self.nodes)

    @property
    def history_size(self) -> int:
        """More than a burst and what is published while a browser is away, and then some."""
        return self.history or min(100_000, 2 * self.size.rpc_burst)

    def __str__(self) -> str:
        asked = {"minutes": f"{self.minutes:g}", "seed": self.seed, "nodes": self.nodes}
        asked["clients"] = self.clients
        if self.history:
            asked["history"] = self.history
        return " ".join(f"{name}={value}" for name, value in asked.items())


class Soak:
    """Everything that runs."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._directory = directory
        self._say = say
        self._run = f"{plan.seed & 0xFFFFFFFF:08x}"
        self._secret = secrets.token_hex(32)
        self._authority = authority()
        self._browsers = Browsers()
        self._watch = Watch()
        self._made = time.monotonic()
        self._begun = 0.0
        self._nodes: list[SoakNode] = []

    async def run(self) -> Observed:
        """Soak; returns what was seen. Raises `AssertionError` when it cannot even begin."""
        machines = await self._machines()
        host = GATEWAY if self._plan.namespaces else "127.0.0.1"
        nats = NatsServer(self._directory / "nats", free_port(), host=host)
        self._nodes = [
            SoakNode(f"node{number}", self._directory, machine, setup)
            for number, (machine, setup) in enumerate(
                zip(machines, self._plan.setups, strict=True), start=1
            )
        ]
        for node in self._nodes:
            node.data_dir.parent.mkdir()
        if self._plan.namespaces:
            await small_disk(str(self._nodes[-1].data_dir.parent))
        cluster = SoakCluster(self._nodes, self._say)
        async with trio.open_nursery() as outer:
            asyncio_loop = AsyncioLoop()
            await outer.start(asyncio_loop.run)
            self._look = partial(asyncio_loop.call, look_aio, nats.url)
            jetstream = [
                JetStreamFeed(asyncio_loop, nats.url, self._run, stream) for stream in (JOBS, MIXED)
            ]
            at_once = self._plan.history_size // 3
            rpc = RpcFeed(asyncio_loop, [node.rpc for node in self._nodes], self._run, at_once)
            posts = [(node.http, self._context_of(node)) for node in self._nodes]
            may_publish, repeats = self._token(publish=["*"]), not self._plan.history
            http = HttpFeed(asyncio_loop, posts, self._run, may_publish, repeats=repeats)
            behind_max = self._plan.history_size // 4
            trouble = Trouble(cluster, nats, jetstream, rpc, self._browsers, behind_max, self._say)
            async with trio.open_nursery() as nursery:
                try:
                    await nats.start()
                    retention = retention_of(self._plan.seed)
                    await asyncio_loop.call(make_stream_aio, nats.url, retention)
                    await self._start(nursery, cluster, nats)
                    self._say(f"JetStream: {JOBS} is a work queue, {MIXED} is by {retention}")
                    feeds: list[Feed] = [jetstream[0], rpc, http, jetstream[1]]
                    for feed in feeds:
                        nursery.start_soon(feed.run)
                    await self._soak(trouble)
                    observed = await self._finish(feeds, trouble)
                    await self._look_at_jetstream(jetstream, observed)
                    observed.broken = [*trouble.broken, *http.wrong, *await cluster.stop()]
                finally:
                    with trio.CancelScope(shield=True):
                        await cluster.destroy()
                        await nats.kill()
                nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()
        return observed

    async def _machines(self) -> list[Machine | None]:
        if not self._plan.namespaces:
            return [None] * self._plan.nodes
        network = Network()
        await network.open()
        machines = [Machine(network) for _ in range(self._plan.nodes)]
        for machine in machines:
            await machine.open()
        return list(machines)

    async def _start(self, nursery: trio.Nursery, cluster: SoakCluster, nats: NatsServer) -> None:
        config_file = self._directory / "noti.toml"
        config_file.write_text(CONFIG)
        key_file = self._directory / "jwt.key"
        key_file.write_text(self._secret)
        settings = [f"--{role}-jwt-key-file={key_file}" for role in ("publisher", "subscriber")]
        settings += ["--anonymous", "--subscriptions", f"--config={config_file}"]
        issue(Wanted(dns=(HOST,)), self._authority).write(self._directory, "site")
        tls = ["--http-tls-cert", str(self._directory / "site.pem")]
        tls += ["--http-tls-key", str(self._directory / "site.key")]
        cluster.start(nursery, nats.url, self._plan.history_size, settings, tls)
        assert await cluster.until_whole(START_S_MAX), "the cluster did not come up"
        plan, log = self._plan, self._directory / "browsers.log"
        addresses = [node.http for node in self._nodes]
        token = self._token(subscribe=["*"])
        told = (addresses, plan.clients, IDLE, self._run, log, bool(plan.history), token)
        secured = [place for place, node in enumerate(self._nodes) if node.setup.has_tls]
        await nursery.start(self._browsers.run, *told, secured, self._authority.pem.decode())
        with trio.fail_after(START_S_MAX):
            while self._browsers.report.get("open", 0) < plan.clients:  # noqa: ASYNC110
                await trio.sleep(0.1)
        nursery.start_soon(self._watch.run, self._nodes)
        self._say(f"{plan.nodes} nodes, {plan.clients} browsers that read, {IDLE} that never do")
        for node in self._nodes:
            self._say(f"{node.name}: {node.setup}")
        self._begun = time.monotonic()

    def _schedule(self) -> Iterator[Episode]:
        """Yield episodes as long as there is time for one more."""
        for episode in episodes(self._plan.seed, self._plan.size):
            if time.monotonic() - self._begun >= 60 * self._plan.minutes:
                return
            yield episode

    async def _soak(self, trouble: Trouble) -> None:
        await trio.sleep(self._plan.size.calm_s_max)
        for episode in self._schedule():
            await trouble.run(episode)
            self._progress()

    def _progress(self) -> None:
        report = self._browsers.report
        wrong = [f"{report[key]} {key}" for key in ("lost", "twice", "disorder", "leaked", "gaps")]
        told = f"{report['events']} events, {report['deliveries']} deliveries; {wrong}"
        self._say(f"{told}, {self._browsers.slowest()}")

    async def _finish(self, feeds: Sequence[Feed], trouble: Trouble) -> Observed:
        """Stop publishing, let everybody get everything, and look at what they have."""
        with trio.move_on_after(SETTLE_S_MAX) as settling:
            for feed in feeds:
                await feed.stop()
        if settling.cancelled_caught:
            trouble.broken.append(f"events were not taken within {SETTLE_S_MAX:g} s")
        acknowledged = [feed.acknowledged for feed in feeds]
        published = sum(acknowledged)
        await self._until_slowest_has(published)
        lost = self._browsers.report["lost"] + self._browsers.report["behind"]
        await self._browsers.add_newcomers()
        await self._until_newcomers_know()
        missing, some = await self._browsers.missing(acknowledged)
        await self._browsers.stay()
        listed = await self._listed()
        if missing:
            self._say(f"never shown: {', '.join(map(ledger.told, some))}")
        for begin, end in self._browsers.silences:
            first, last = begin - self._made, end - self._made
            self._say(f"no event for {end - begin:.1f} s, from {first:.1f} to {last:.1f} s")
        report = self._browsers.report
        self._say(f"answers other than streams: {report['refused']}")
        for example in report["examples"]:
            self._say(f"SEEN: {example}")
        return Observed(
            seconds=time.monotonic() - self._begun,
            published=published,
            seen=report["events"],
            deliveries=report["deliveries"],
            by_transport={name: report["by_transport"].get(name, 0) for name in self._transports()},
            closes=report["closes"],
            lost=lost,
            missing=missing,
            twice=report["twice"],
            disorder=report["disorder"],
            leaked=report["leaked"],
            gaps=report["gaps"],
            gaps_allowed=bool(self._plan.history),
            ended=self._ended_without_trouble(trouble),
            closed=self._watch.closed,
            idle_opened=report["idle_opened"],
            exits=[one for node in self._nodes for one in node.exits],
            silences=self._browsers.silences,
            busy_s=self._browsers.busy_s,
            samples=self._watch.samples,
            workers={node.name: node.setup.workers for node in self._nodes},
            histories=report["first_places"],
            open_streams=self._browsers.report["reading"],
            subscriptions=listed,
        )

    async def _look_at_jetstream(self, feeds: Sequence[JetStreamFeed], observed: Observed) -> None:
        """Add what there is, once all is as it should be or time is up."""
        wanted = {one for feed in feeds for one in feed.garbage_ids()}
        seen: AtTheEnd | None = None
        with trio.move_on_after(SETTLE_S_MAX):
            while seen is None or seen.left or wanted - seen.letters.keys():
                await trio.sleep(1.0)
                seen = await self._look()
        assert seen is not None, "JetStream does not answer"
        observed.garbage = len(wanted)
        observed.uncopied = len(wanted - seen.letters.keys())
        observed.copied_twice = seen.twice
        observed.left = seen.left

    async def _listed(self) -> list[int | None]:
        """Return how many subscriptions each node lists, once that is what there is."""
        counts: list[int | None] = []
        with trio.move_on_after(SETTLE_S_MAX):
            while counts != [self._browsers.report["reading"]] * len(self._nodes):
                await trio.sleep(1.0)
                counts = [await self._count_at(node) for node in self._nodes]
        return counts

    async def _count_at(self, node: SoakNode) -> int | None:
        token = self._token(subscribe=["*"])
        with trio.move_on_after(ANSWER_S_MAX):
            try:
                async with self._connected(node) as http:
                    await http.request(SUBSCRIPTIONS_PATH, [("authorization", f"Bearer {token}")])
                    return len(json.loads(await http.read_all())["subscriptions"])
            except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError, ValueError):
                return None
        return None

    @asynccontextmanager
    async def _connected(self, node: SoakNode) -> AsyncIterator[Client]:
        context = self._context_of(node)
        stream: trio.abc.Stream = await trio.open_tcp_stream(*node.http)
        if context is not None:
            stream = trio.SSLStream(stream, context, server_hostname=HOST, https_compatible=True)
        async with stream:
            yield Client(stream)

    def _context_of(self, node: SoakNode) -> ssl.SSLContext | None:
        pem = self._authority.pem.decode()
        return trusting(pem, "http/1.1") if node.setup.has_tls else None

    def _transports(self) -> list[str]:
        return labels_of([node.setup for node in self._nodes], self._plan.clients)

    def _token(self, *, publish: Sequence[str] = (), subscribe: Sequence[str] = ()) -> str:
        draft = TokenDraft(publish=publish, subscribe=subscribe, issued_at=time.time())
        return signed_token(draft, self._secret.encode(), "the soak's key", "HS256")

    async def _until_slowest_has(self, published: int) -> None:
        with trio.move_on_after(SETTLE_S_MAX):
            while self._browsers.report["slowest"] < published:  # noqa: ASYNC110
                await trio.sleep(0.1)

    async def _until_newcomers_know(self) -> None:
        with trio.move_on_after(SETTLE_S_MAX):
            while not self._newcomers_know():  # noqa: ASYNC110
                await trio.sleep(0.1)

    def _newcomers_know(self) -> bool:
        report = self._browsers.report
        first = report["first_places"]
        all_there = len(first) == len(self._nodes) and None not in first
        return all_there and report["slowest"] >= report["events"]

    def _ended_without_trouble(self, trouble: Trouble) -> int:
        """Count ends of streams at nodes that nothing was done to at that time, or right before.

        Browsers that are behind read the end of a stream long after its node's process ended.
        """
        found: Counter[tuple[str, float]] = Counter()
        for at, place, began in self._browsers.ends:
            node = self._nodes[place]
            died = any(began <= one.at <= at for one in node.exits)
            if not died and not trouble.was_harmed(node.name, at):
                found[node.name, at] += 1
        for (name, at), count in found.items():
            when = at - self._made
            self._say(f"{count} streams ended at {name} without trouble, at {when:.1f} s")
        return found.total()
