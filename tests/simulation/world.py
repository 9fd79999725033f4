"""A cluster of whole nodes in one Trio run: the real tree, with everything outside it in memory.

A seed decides the trace, so there are no threads, no asyncio, sockets, files or real time.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from noti.address import Address
from noti.assembly import LogLimits
from noti.errors import Overloaded, PeerUnavailable, ProposalUncertain
from noti.history.notification import Notification
from noti.ports import Clock
from noti.publishing.nats.ports import DeadLetter, SourceMessage
from noti.publishing.ports import Draft, Outcome
from noti.raft.core.messages import PeerMessage, TimeoutNow
from noti.raft.ports import Hello
from noti.rpc.generated.category.v1 import CategoryMessage
from tests.simulation.alarm import now, sleep_until
from tests.simulation.checks import Checks
from tests.simulation.clocks import MachineClock
from tests.simulation.machine import SimulatedNode
from tests.simulation.memory_clients import Browser
from tests.simulation.memory_gossip import MemoryNet
from tests.simulation.memory_http import post
from tests.simulation.memory_rpc import MemoryRpcNetwork, RpcHub
from tests.simulation.memory_stream import MemoryStream, Retention
from tests.simulation.timeline import DELETED_UNREAD, Timeline

VOTING = ("leader", "follower")
TEXTS = "texts"
"""The second stream, whose messages are text."""
INVALID_SUBJECTS = {"jobs": "jobs.noti.invalid", TEXTS: "texts.invalid"}
"""By stream: messages under this subject do not parse."""
PUBLISHER_WAIT_S = 12.0


@dataclass(frozen=True)
class Settings:
    """What is drawn for the machines of one run."""

    history_sizes: tuple[int, ...] = (500,)
    """Of the machines in turn: what the leader has counts."""
    log_memory_bytes: int = 32 * 1024 * 1024
    browsers: int = 4
    vanish: float = 0.0
    away_max_s: float = 2.0
    slow_s: float = 0.0
    disk_latency_s: tuple[float, float] = (0.0002, 0.002)
    rpc_latency_s: tuple[float, float] = (0.0002, 0.002)
    packet_loss: float = 0.0
    clock_spread: float = 0.0
    hub_sends_bytes_per_s: float = math.inf
    pacing_s: float = 10.0
    voters_max: int = 5
    subscriptions: bool = False
    token_s: float = 0.0
    """How long the tokens of every other browser are good for; 0: they have none."""
    retention: Retention = "workqueue"
    """Of the source's stream."""
    second_retention: Retention | None = None
    """Of another stream that is read beside it."""
    history_per_topic: int = 0
    topics_max: int = 10_000
    log_limits: LogLimits = field(default_factory=lambda: LogLimits(segment_bytes=65_536))


def message_with(stream: str, number: int) -> tuple[str, bytes]:
    """Return subject and payload of an event for a stream."""
    if stream == TEXTS:
        text = f'{{"user_id":{number},"category_from":"a","category_to":"b"}}'
        return "texts.b", text.encode()
    return "jobs.noti.b", bytes(CategoryMessage(user_id=number, category_from="a", category_to="b"))


def number_in(message: SourceMessage) -> int | None:
    """Return the number of the event in a message; None if it can never be one."""
    if message.subject in INVALID_SUBJECTS.values():
        return None
    if message.subject.startswith(f"{TEXTS}."):
        return int(json.loads(message.payload)["user_id"])
    return CategoryMessage.parse(message.payload).user_id


class SimulatedCluster:
    """The machines, the cables between them, NATS, and some browsers."""

    def __init__(
        self,
        nursery: trio.Nursery,
        seed: int,
        size: int = 3,
        settings: Settings | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.nursery = nursery
        self.settings = settings or Settings()
        self.timeline = timeline or Timeline(trio.current_time)
        self.checks = Checks(self.timeline.end)
        if self.settings.clock_spread:
            self.timeline.reach("clocks ran at different rates")
        self.seed = seed
        self.size = size
        self.rng = random.Random(f"world:{seed}")
        world_clock = MachineClock()
        self.net = MemoryNet(
            self.rng,
            latency_s=self.settings.rpc_latency_s,
            loss=self.settings.packet_loss,
        )
        self.hub = RpcHub(self.rng, latency_s=self.settings.rpc_latency_s, trace=self.note)
        self.hub.watch = self._hear
        self.net.happened = self.hub.happened = self.timeline.reach
        self.timeline.logged = self._hear_logged
        self.dead_letters: dict[str, DeadLetter] = {}
        self.streams = [self._new_stream("jobs", world_clock, self.settings.retention)]
        if self.settings.second_retention is not None:
            self.streams.append(
                self._new_stream(TEXTS, world_clock, self.settings.second_retention)
            )
            self.timeline.reach("two streams were read at once")
        self.stream = self.streams[0]
        self.founders = size
        self.nodes: list[SimulatedNode] = []
        self.nodes = [SimulatedNode(self, number) for number in range(1, size + 1)]
        self.clients = [node.clients for node in self.nodes]
        self.browsers = [
            Browser(
                self.rng,
                f"browser{number}",
                self.checks,
                vanish=self.settings.vanish,
                away_max_s=self.settings.away_max_s,
                slow_s=self.settings.slow_s,
                token_s=self.settings.token_s if number % 2 else 0.0,
            )
            for number in range(1, self.settings.browsers + 1)
        ]
        for browser in self.browsers:
            browser.happened = self.timeline.reach
        self.timeline.troubled = self.is_in_trouble
        self.outside = MemoryRpcNetwork(self.hub, ("192.0.2.1", 1))
        self.published = 0
        self.promised: set[int] = set()
        """Events that must be shown: those in the stream, and those of publishers who were told."""
        self.lost_at_source: set[int] = set()
        """Events that went with their stream before anybody acknowledged them."""
        self.invalid: set[tuple[str, int]] = set()
        """Stream and sequence of each message of the source that can never be an event."""
        self.heard: set[int] = set()
        """Events of which the source was told that they are committed."""
        self.deleted: dict[tuple[str, int], int] = {}
        """Stream and sequence of events that a stream deleted by its limits, behind a place that a
        node had reached."""
        self.told: set[tuple[str, int]] = set()
        """Stream and sequence of messages that nodes told to be deleted unread."""

    @property
    def trace(self) -> list[str]:
        """All that was noted so far."""
        return self.timeline.lines

    def note(self, line: str) -> None:
        self.timeline.note("world", line)

    def _hear(self, source: Address, peer: Hello, messages: Sequence[PeerMessage]) -> None:
        self.checks.said(peer.node_id, messages)
        if peer.cluster_id:
            self.checks.belongs(peer.node_id, peer.cluster_id)
        shown = " ".join([f"{type(m).__name__}{m.term}" for m in messages])
        if TimeoutNow.__name__ in shown and self.is_in_trouble():
            self.timeline.reach("leadership was handed over under faults")
        self.timeline.mix(f"{source[0]} > {peer.name} {shown}")

    def _new_stream(self, name: str, clock: Clock, retention: Retention) -> MemoryStream:
        stream = MemoryStream(
            clock,
            trace=self.note,
            retention=retention,
            name=name,
            dead_letters=self.dead_letters,
        )
        stream.removed = self._hear_acknowledged
        stream.happened = self.timeline.reach
        return stream

    def _hear_logged(self, what: str, fields: Mapping[str, Any]) -> None:
        if what == DELETED_UNREAD:
            first, last = fields["first_seq"], fields["last_seq"]
            self.told |= {(fields["stream"], seq) for seq in range(first, last + 1)}

    def publish_invalid(self, stream: MemoryStream, payload: bytes) -> None:
        """Publish to a stream what can never be an event."""
        seq = stream.publish(INVALID_SUBJECTS[stream.name], payload)
        if seq in stream.unacknowledged:
            self.invalid.add((stream.identity, seq))

    def expire(self, stream: MemoryStream, count: int) -> int:
        """Let a stream delete its oldest messages; return how many there were."""
        place = max((m.store().floor(stream.identity) for m in self.nodes if m.up), default=0)
        gone = stream.expire(count)
        for message in gone:
            self.invalid.discard((stream.identity, message.seq))
            number = number_in(message)
            if number is not None and number not in self.checks.numbers:
                self.lost_at_source.add(number)
                if place:
                    self.deleted[stream.name, message.seq] = number
        return len(gone)

    def untold(self) -> list[tuple[str, int]]:
        """Return what streams deleted unread and no node told of."""
        return [
            place
            for place, number in self.deleted.items()
            if place not in self.told and number not in self.checks.numbers
        ]

    def hear_shown(self, machine: SimulatedNode, notifications: Sequence[Notification]) -> None:
        """A machine shows these, and its store has applied them."""
        self.checks.node_showed(machine.name, notifications)
        if machine.report is None:
            return
        for stream, seq in self.invalid:
            if seq <= machine.store().floor(stream):
                is_copied = f"{stream}:{seq}" in self.dead_letters
                self.checks.passed_a_dead_letter(machine.name, seq, is_copied=is_copied)

    def _hear_acknowledged(self, message: SourceMessage) -> None:
        number = number_in(message)
        if number is not None:
            self.heard.add(number)
            self.checks.acknowledged(number)

    def trace_hash(self) -> str:
        """One text for all that happened, states of the nodes included."""
        states = [self._state_of(node) for node in self.nodes if node.up]
        seen = [str(browser.seen) for browser in self.browsers]
        text = "\n".join([self.timeline.digest(), *states, *seen])
        return hashlib.sha256(text.encode()).hexdigest()

    def _state_of(self, node: SimulatedNode) -> str:
        status = {**node.status(), "node": node.name}  # without the name of the machine below
        return str(status)

    async def start(self) -> None:
        async with trio.open_nursery() as nursery:
            for simulated in self.nodes:
                nursery.start_soon(simulated.start)
        self.start_browsers()

    def start_browsers(self) -> None:
        for browser in self.browsers:
            self.nursery.start_soon(browser.run, self.clients)

    async def add_machine(self) -> SimulatedNode:
        """Start one more node; it knows the others and belongs to no cluster."""
        self.size += 1
        newcomer = SimulatedNode(self, self.size)
        self.nodes.append(newcomer)
        self.clients.append(newcomer.clients)
        await newcomer.start()
        return newcomer

    def voters(self) -> set[str]:
        """The names of the running nodes that vote; empty until all have heard of it."""
        leader = self.leader()
        views = {
            (status["voters"], status["changing_members"])
            for status in (simulated.status() for simulated in self.nodes if simulated.up)
        }
        if leader is None or len(views) > 1 or leader.status()["changing_members"]:
            return set()
        members = leader.status()["members"]
        roles = {m["node_id"]: m["role"] for m in members}  # type: ignore[attr-defined]
        own = {simulated.name: simulated.node_id() for simulated in self.nodes if simulated.up}
        return {name for name, node_id in own.items() if roles.get(node_id) in VOTING}

    def publish(self, count: int = 1, stream: MemoryStream | None = None) -> None:
        """Publish events to one stream, or to whichever."""
        for _ in range(count):
            self.published += 1
            self.promised.add(self.published)
            some = stream or self.stream
            if stream is None and len(self.streams) > 1:
                some = self.rng.choice(self.streams)
            subject, payload = message_with(some.name, self.published)
            seq = some.publish(subject, payload)
            self.checks.places[self.published] = some.identity, seq
            if seq not in some.unacknowledged:
                self.lost_at_source.add(self.published)

    async def publish_to(self, machine: SimulatedNode, attempts: int, size_bytes: int = 0) -> None:
        """Be a publisher who gives an event to one node, and to others while he is in doubt."""
        self.published += 1
        number = self.published
        data = f'{{"user_id":{number},"category_from":"a","category_to":"b"}}'.ljust(size_bytes)
        topic = f"jobs.noti.{'abc'[number % 3]}"
        draft = Draft((topic,), data, id=f"publisher-{number}", private=number % 5 == 0)
        for attempt in range(attempts):
            match await self._outcome_at(machine, number, draft):
                case tuple():
                    self.timeline.reach("a publisher was told that an event is committed")
                    self.checks.acknowledged(number)
                    self.promised.add(number)
                    return
                case None | ProposalUncertain():
                    self.timeline.reach("a publisher was left in doubt")
                case _ if attempt == 0:
                    self.timeline.reach("a publisher was refused")
                    self.checks.refuses(number)
                    return
            await trio.sleep(self.rng.uniform(0.0, 1.0))
            machine = self.rng.choice(self.nodes)

    async def _outcome_at(
        self, machine: SimulatedNode, number: int, draft: Draft
    ) -> Outcome | None:
        """Give one node an event, over gRPC or HTTP; None when it does not answer."""
        outcome: Outcome | None = None
        with trio.move_on_after(PUBLISHER_WAIT_S):
            if number % 2:
                with suppress(PeerUnavailable):
                    outcome = await self.outside.publish(machine.rpc, [draft])
                return outcome
            match await post(machine.clients, draft):
                case 200:
                    self.timeline.reach("an event was published over HTTP")
                    outcome = (draft.id or "",)
                case 503:
                    outcome = Overloaded("status 503")
                case status:
                    assert status in (None, 504), f"event {number} was answered {status}"
        return outcome

    def recreate_stream(self, stream: MemoryStream) -> None:
        """Delete a stream with all that is in it, and make it again."""
        numbers = {number_in(message) for message in stream.pending()}
        self.lost_at_source |= {n for n in numbers if n is not None} - self.heard
        self.deleted = {place: n for place, n in self.deleted.items() if place[0] != stream.name}
        self.told = {place for place in self.told if place[0] != stream.name}
        stream.recreate()

    def missing(self) -> list[str]:
        """Events that should be shown and are not."""
        expected = self.promised - self.lost_at_source
        return [f"event {number}" for number in sorted(expected - self.checks.numbers)]

    def check_nothing_is_missing(self) -> None:
        """All that was published is shown, and nothing else."""
        assert not self.missing()
        assert self.checks.numbers <= set(range(1, self.published + 1))

    def connected(self) -> bool:
        """Whether all cables are whole."""
        return not (self.net.is_cut() or self.hub.is_cut_somewhere())

    def is_in_trouble(self) -> bool:
        """Whether anything is broken now that matters to Raft."""
        whole = all(machine.up and not machine.disk.failed for machine in self.nodes)
        return not (whole and self.connected())

    def mend(self) -> None:
        """Repair all cables."""
        self.net.heal()
        self.hub.heal()

    def leader(self) -> SimulatedNode | None:
        leaders = [node for node in self.nodes if node.leads()]
        for node in leaders:
            node.examine()
        return max(leaders, key=lambda node: node.consensus().term, default=None)

    async def wait_for(self, condition: Callable[[], object], within_s: float = 30.0) -> None:
        """Look every 10 virtual ms; raises `TooSlowError` after `within_s`."""
        with trio.fail_after(within_s):
            while not condition():
                self.checks.all_held()
                await sleep_until(now() + 0.01)

    async def wait_leader(self) -> SimulatedNode:
        await self.wait_for(self.leader)
        leader = self.leader()
        assert leader is not None
        self.note(f"leader {leader.name}")
        return leader

    def last_seqs(self) -> set[int]:
        return {node.clients.feed.newest_seq for node in self.nodes if node.up}

    async def wait_everything_seen(self) -> None:
        """Return when every live node and every browser has all that was published."""
        await self.wait_for(lambda: self.last_seqs() == {self.published})
        await self.wait_for(
            lambda: all(len(browser.seen) >= self.published for browser in self.browsers)
        )

    def check_browsers(self) -> None:
        """Each browser has seen every event once, in order, without a gap."""
        for browser in self.browsers:
            numbers = [int(text.split('"user_id":')[1].split(",")[0]) for text in browser.seen]
            assert numbers == list(range(1, self.published + 1)), numbers
            assert browser.gaps == 0
