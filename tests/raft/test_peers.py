"""One stream per pair of nodes, whatever happens to the network."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from noti.address import Address
from noti.errors import ClusterMismatch, MessageInvalid, PeerUnavailable
from noti.raft.core.messages import (
    AppendRequest,
    EntryKind,
    LeaderMessage,
    Message,
    NodeId,
    PeerMessage,
    TimeoutNow,
)
from noti.raft.core.records import new_entry
from noti.raft.peers import (
    DIAL_WITHIN_S,
    DIALS_TO_STRANGERS_MAX,
    NAMES_MAX,
    OUTBOX_BYTES_MAX,
    OUTBOX_MESSAGES_MAX,
    REDIAL_MAX_S,
    Peers,
)
from noti.raft.ports import Hello, MessageStream, Standing
from noti.rpc.answers import NodeRole, ServerInfo
from noti.throttled_log import INTERVAL_S
from noti.trio_clock import TrioClock
from tests.contract.test_rpc_network import Publications
from tests.simulation.memory_rpc import MemoryRpcNetwork, RpcHub


class Machine:
    """One node's peers with an RPC address, and a diary of what they were told."""

    def __init__(self, hub: RpcHub, name: str, *, seed: int = 1) -> None:
        self.name = name
        self.address: Address = (name, 8400)
        self.names: dict[str, str] = {}
        self.network = MemoryRpcNetwork(hub, self.address)
        self.peers = Peers(
            self.network, self.hello, self, TrioClock(), random.Random(seed), self.names.get
        )
        self.diary: list[tuple[str, object]] = []
        self.welcomed: list[float] = []
        self.refusal: Exception | None = None

    def hello(self) -> Hello:
        return Hello("c", self.name, self.name)

    def admit(self, peer: Hello, *, proven: bool) -> None:
        self.welcomed.append(trio.current_time())
        if self.refusal is not None:
            raise self.refusal

    def standing(self, node_id: NodeId) -> Standing:
        return Standing.MEMBER

    async def raft_stream(self, stream: MessageStream) -> None:
        await self.peers.serve(stream)

    def servers(self) -> list[ServerInfo]:
        return []

    def is_leader(self) -> bool:
        return False

    def role(self) -> NodeRole:
        return NodeRole(self.name, "follower", 0, "")

    def serving(self) -> bool:
        return True

    def messages_received(self, messages: Sequence[Message]) -> None:
        self.diary += [("said", message) for message in messages]

    def forward_received(self, message: LeaderMessage) -> None:
        self.diary.append(("forwarded", message))

    def peer_connected(self, node_id: NodeId) -> None:
        self.diary.append(("connected", node_id))

    def peer_lost(self, node_id: NodeId) -> None:
        self.diary.append(("lost", node_id))

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.network.serve_rpc, self.address, self, self, Publications())
            await nursery.start(self.peers.run)
            task_status.started()


def the_hub() -> RpcHub:
    return RpcHub(random.Random(1))


@asynccontextmanager
async def running(*machines: Machine) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for machine in machines:
            await nursery.start(machine.run)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Machine, Machine]]:
    """Run two that have found each other."""
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    async with running(a, b):
        introduce(a, b)
        await until(lambda: a.peers.connected() and b.peers.connected())
        yield a, b


def introduce(*machines: Machine) -> None:
    for machine in machines:
        machine.peers.update({m.name: m.address for m in machines if m is not machine})


async def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - conditions over several nodes
            await trio.sleep(0.001)


def word(sender: str, term: int = 1) -> TimeoutNow:
    return TimeoutNow(sender, term)


@pytest.mark.parametrize("suspicious", ["a", "b"], ids=["dialer", "dialed"])
async def test_who_comes_with_the_id_of_another_name_gets_no_stream(
    autojump_clock: trio.testing.MockClock, suspicious: str
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    machine, other = (a, b) if suspicious == "a" else (b, a)
    machine.names[other.name] = "somebody else"
    introduce(a, b)
    async with running(a, b):
        with capture_logs() as logs:
            await trio.sleep(10)
        assert not machine.peers.connected()
        told = [line for line in logs if "under another name" in line["event"]]
        assert [line["known_as"] for line in told] == ["somebody else"]
        machine.names[other.name] = other.name
        await until(lambda: a.peers.connected() and b.peers.connected())


async def test_certificate_gets_a_stream_under_a_name_that_gossip_denies(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Machine(the_hub(), "a")
    machine.names["id"] = "somebody else"
    async with running(machine):
        for proven in (False, True):
            stream = Scripted(Hello("c", "id", "b"), proven=proven)
            stream.says(PeerUnavailable("it is gone"))
            await machine.peers.serve(stream)
    assert machine.diary == [("connected", "id"), ("lost", "id")], "once, the second time"


async def test_the_lower_id_dials_and_both_get_one_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    async with running(a, b):
        introduce(a, b)
        await trio.sleep(5)
        assert (len(a.welcomed), len(b.welcomed)) == (0, 1)
        assert a.peers.connected() == {"b"}
        assert b.peers.connected() == {"a"}
        assert (a.diary, b.diary) == ([("connected", "b")], [("connected", "a")])


async def test_messages_arrive_in_order_both_ways(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (a, b):
        for term in range(200):
            a.peers.send("b", word("a", term))
            b.peers.send("a", word("b", term))
        a.peers.flush()
        b.peers.flush()
        await trio.sleep(1)
    assert [m for what, m in b.diary if what == "said"] == [word("a", t) for t in range(200)]
    assert [m for what, m in a.diary if what == "said"] == [word("b", t) for t in range(200)]


async def test_message_without_a_stream_or_beyond_the_outbox_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    a.peers.send("b", word("a", 999))
    async with running(a, b):
        introduce(a, b)
        await until(lambda: a.peers.connected() and b.peers.connected())
        for term in range(OUTBOX_MESSAGES_MAX + 10):
            a.peers.send("b", word("a", term))
        a.peers.flush()
        await trio.sleep(1)
    said = [m for what, m in b.diary if what == "said"]
    assert said == [word("a", term) for term in range(OUTBOX_MESSAGES_MAX)]


async def test_entries_beyond_the_bytes_of_an_outbox_are_dropped_and_nothing_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    large = new_entry(1, 1, EntryKind.COMMAND, bytes(OUTBOX_BYTES_MAX // 4))
    async with connected() as (a, b):
        for lap in range(2):
            taken = [a.peers.send("b", AppendRequest("a", 1, 0, 0, 0, (large,))) for _ in range(6)]
            assert taken == [True] * 4 + [False] * 2
            assert a.peers.send("b", word("a", lap))
            a.peers.flush()
            await trio.sleep(1)
    said = [m for what, m in b.diary if what == "said"]
    assert len(said) == 10


async def test_heartbeat_that_waits_makes_room_for_the_next_request_of_its_term(
    autojump_clock: trio.testing.MockClock,
) -> None:
    entry = new_entry(1, 1, EntryKind.COMMAND, b"x")
    of_term_1 = [AppendRequest("a", 1, 0, 0, 0, entries) for entries in ((), (entry,), ())]
    of_term_2 = AppendRequest("a", 2, 0, 0, 0, (entry,))
    async with connected() as (a, b):
        for message in (*of_term_1, of_term_2):
            a.peers.send("b", message)
        a.peers.flush()
        await trio.sleep(1)
    assert [m for what, m in b.diary if what == "said"] == [*of_term_1[1:], of_term_2]


async def test_heartbeat_that_waits_stays_when_what_follows_does_not_fit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    large = new_entry(1, 1, EntryKind.COMMAND, bytes(OUTBOX_BYTES_MAX // 4))
    heartbeat = AppendRequest("a", 1, 0, 0, 0, ())
    async with connected() as (a, b):
        for _ in range(4):
            assert a.peers.send("b", AppendRequest("a", 1, 0, 0, 0, (large,)))
        assert a.peers.send("b", heartbeat)
        assert not a.peers.send("b", AppendRequest("a", 1, 0, 0, 0, (large,)))
        a.peers.flush()
        await trio.sleep(1)
    assert [m for what, m in b.diary if what == "said"][-1] == heartbeat


async def test_broken_stream_is_reported_and_dialed_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    async with running(a, b):
        introduce(a, b)
        await until(lambda: b.peers.connected())
        for pipe in list(hub._streams):
            pipe.break_("connection reset by peer")
        started = trio.current_time()
        await until(lambda: len(b.welcomed) == 2)
        assert trio.current_time() - started < 0.1, "the first attempt comes quickly"
        await until(lambda: a.peers.connected() and b.peers.connected())
    for machine, other in ((a, "b"), (b, "a")):
        assert machine.diary[:3] == [("connected", other), ("lost", other), ("connected", other)]


async def test_dead_peer_is_dialed_ever_more_rarely(autojump_clock: trio.testing.MockClock) -> None:
    hub = the_hub()
    a = Machine(hub, "a")
    dialed: list[float] = []

    async def refuse(to: Address, hello: Hello) -> MessageStream:
        dialed.append(trio.current_time())
        raise PeerUnavailable("connection refused")

    a.network.open_raft_stream = refuse  # type: ignore[method-assign]
    async with running(a):
        a.peers.update({"b": ("b", 8400)})
        await trio.sleep(60)
    pauses = [later - earlier for earlier, later in pairwise(dialed)]
    assert 0.025 <= pauses[0] <= 0.05
    assert all(0.5 <= pause <= 1.0 for pause in pauses[6:])
    assert 60 <= len(dialed) <= 130


async def test_peer_that_refuses_us_is_left_alone_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    b.refusal = ClusterMismatch("another cluster")
    async with running(a, b):
        introduce(a, b)
        with capture_logs() as logs:
            await trio.sleep(INTERVAL_S - 1)
        assert [line["reason"] for line in logs if "rejects" in line["event"]] == [
            "another cluster"
        ]
        assert 6 <= len(b.welcomed) <= 13
        assert a.peers.connected() == set()
        b.refusal = None
        await until(lambda: a.peers.connected())


async def test_wrong_node_behind_an_address_is_not_used_and_not_pestered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Addresses are reused: somebody else may live where a dead peer was."""
    hub = the_hub()
    a, c = Machine(hub, "a"), Machine(hub, "c")
    async with running(a, c):
        a.peers.update({"b": c.address})
        await trio.sleep(20)
        assert a.peers.connected() == set()
        assert ("connected", "b") not in a.diary
        assert len(c.welcomed) <= 50


async def test_new_address_of_a_peer_is_used_at_the_next_attempt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    async with running(a, b):
        a.peers.update({"b": ("nowhere", 1)})
        await trio.sleep(3)
        assert a.peers.connected() == set()
        a.peers.update({"b": b.address})
        await until(lambda: a.peers.connected() == {"b"}, within_s=1.5)


async def test_peer_off_the_list_is_not_dialed_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    async with running(a, b):
        introduce(a, b)
        await until(lambda: a.peers.connected())
        a.peers.update({})
        await until(lambda: not a.peers.connected() and not b.peers.connected())
        await trio.sleep(5)
        assert len(b.welcomed) == 1
        a.peers.update({"b": b.address})
        await until(lambda: a.peers.connected(), within_s=1.0)


async def test_address_at_which_nobody_answers_is_given_up_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Of a machine that is gone, not even a refusal comes; the next attempt may find it back."""
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    answering, dial = False, a.network.open_raft_stream

    async def silent(to: Address, hello: Hello) -> MessageStream:
        if not answering:
            await trio.sleep_forever()
        return await dial(to, hello)

    a.network.open_raft_stream = silent  # type: ignore[method-assign]
    async with running(a, b):
        introduce(a, b)
        await trio.sleep(60)
        answering = True
        await until(lambda: a.peers.connected(), within_s=DIAL_WITHIN_S + REDIAL_MAX_S)


async def test_peer_that_moved_is_dialed_at_its_new_address_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was dialed at the old one meanwhile, where nobody answers."""
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    dial = a.network.open_raft_stream

    async def silent(to: Address, hello: Hello) -> MessageStream:
        if to != b.address:
            await trio.sleep_forever()
        return await dial(to, hello)

    a.network.open_raft_stream = silent  # type: ignore[method-assign]
    async with running(a, b):
        a.peers.update({"b": ("gone", 8400)})
        await trio.sleep(1)
        introduce(a, b)
        await until(lambda: a.peers.connected(), within_s=0.1)


async def test_stream_to_a_peer_that_moved_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its machine vanished without a word, so the old stream would never end."""
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    async with running(a):
        async with running(b):
            introduce(a, b)
            await until(lambda: a.peers.connected())
            hub.vanish(b.address)
        b.address = ("elsewhere", 8400)
        b.network = MemoryRpcNetwork(hub, b.address)
        a.diary.clear()
        async with running(b):
            await trio.sleep(5)
            introduce(a, b)
            await until(lambda: ("connected", "b") in a.diary, within_s=0.1)
    assert a.diary[:2] == [("lost", "b"), ("connected", "b")]


class Forgetful(TrioClock):
    """In the moment in which a pause ends, the peer is taken off the list."""

    forget: Callable[[], None]

    async def sleep_until(self, deadline: float) -> None:
        await super().sleep_until(deadline)
        self.forget()


async def test_peer_that_leaves_the_list_in_the_moment_of_redialing_does_no_harm(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub = the_hub()
    a, b = Machine(hub, "a"), Machine(hub, "b")
    clock = Forgetful()
    a.peers = Peers(a.network, a.hello, a, clock, random.Random(1))
    clock.forget = lambda: a.peers.update({})
    async with running(a):
        a.peers.update({"b": b.address})
        await trio.sleep(3)
        async with running(b):
            a.peers.update({"b": b.address})
            await until(lambda: a.peers.connected())


class Scripted:
    """A stream whose other side says what a test wants."""

    def __init__(self, peer: Hello, *, proven: bool = False) -> None:
        self.peer = peer
        self.proven = proven
        self.closed = False
        self.sent: list[PeerMessage] = []
        self.broken = False
        self.full = False
        self._put, self._take = trio.open_memory_channel[Sequence[PeerMessage] | Exception](99)

    def says(self, *what: Sequence[PeerMessage] | Exception) -> None:
        for words in what:
            self._put.send_nowait(words)

    async def send(self, messages: Sequence[PeerMessage]) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise PeerUnavailable("broken pipe")
        self.sent += messages

    def send_at_once(self, messages: Sequence[PeerMessage]) -> bool:
        if self.broken:
            raise PeerUnavailable("broken pipe")
        if not self.full:
            self.sent += messages
        return not self.full

    async def receive(self, take: Callable[[Sequence[PeerMessage]], bool]) -> None:
        while True:
            words = await self._take.receive()
            if isinstance(words, Exception):
                raise words
            if not take(words):
                return

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


def scripted(name: str = "b") -> Scripted:
    return Scripted(Hello("c", name, name))


async def test_newer_stream_from_a_peer_replaces_the_older_and_the_loss_is_reported_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Machine(the_hub(), "a")
    older, newer = scripted(), scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.peers.serve, older)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(machine.peers.serve, newer)
        await trio.testing.wait_all_tasks_blocked()
        assert older.closed
        assert not newer.closed
        machine.peers.send("b", word("a"))
        machine.peers.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert (older.sent, newer.sent) == ([], [word("a")])
        assert machine.diary == [("connected", "b"), ("lost", "b"), ("connected", "b")]
        nursery.cancel_scope.cancel()
    assert newer.closed
    assert machine.diary[-1] == ("lost", "b")


async def test_message_under_a_false_name_is_refused_and_the_rest_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Machine(the_hub(), "a")
    stream = scripted()
    stream.says([word("b", 1), word("z", 2), word("b", 3)], PeerUnavailable("end"))
    await machine.peers.serve(stream)
    assert [m for what, m in machine.diary if what == "said"] == [word("b", 1), word("b", 3)]


@pytest.mark.parametrize("end", [MessageInvalid("garbage"), PeerUnavailable("reset")])
async def test_garbage_or_a_reset_ends_the_stream_and_nothing_else(
    end: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    machine = Machine(the_hub(), "a")
    stream = scripted()
    stream.says(end)
    await machine.peers.serve(stream)
    assert stream.closed
    assert machine.diary == [("connected", "b"), ("lost", "b")]
    assert machine.peers.connected() == set()


async def test_what_a_full_stream_does_not_take_at_once_follows_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Machine(the_hub(), "a")
    stream = scripted()
    words = [word("a", term) for term in range(100)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.peers.serve, stream)
        await trio.testing.wait_all_tasks_blocked()
        for term, message in enumerate(words):
            stream.full = term > 0
            machine.peers.send("b", message)
            machine.peers.flush()
        assert stream.sent == words[:1]
        await trio.testing.wait_all_tasks_blocked()
        assert stream.sent == words
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("full", [False, True], ids=["at once", "later"])
async def test_stream_that_cannot_be_written_ends(
    full: bool, autojump_clock: trio.testing.MockClock
) -> None:
    machine = Machine(the_hub(), "a")
    stream = scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.peers.serve, stream)
        await trio.testing.wait_all_tasks_blocked()
        machine.peers.send("b", word("a"))
        machine.peers.send("b", word("a"))
        stream.broken, stream.full = not full, full
        machine.peers.flush()
        stream.broken = True
    assert stream.closed
    assert machine.diary[-1] == ("lost", "b")


async def test_peer_that_sends_garbage_on_every_stream_is_dialed_rarely_and_logged_now_and_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A peer of a broken version: each of its streams begins well."""
    machine, dials = Machine(the_hub(), "a"), 0

    async def dial(to: Address, hello: Hello) -> MessageStream:
        nonlocal dials
        dials += 1
        await trio.sleep(0.001)
        stream = scripted()
        stream.says(MessageInvalid("garbage"))
        return stream

    machine.network.open_raft_stream = dial  # type: ignore[method-assign]
    with capture_logs() as records:
        async with running(machine):
            machine.peers.update({"b": ("b", 8400)})
            await trio.sleep(INTERVAL_S + 2)
    assert 60 <= dials <= 130, "between half a second and one second apart"
    told = [record for record in records if record["event"] == "peer sent an invalid message"]
    assert len(told) == 2


class Silence:
    """A network where nothing answers; it counts who is being dialed."""

    def __init__(self) -> None:
        self.dialed: list[Address] = []
        self.most = 0

    async def open_raft_stream(self, to: Address, hello: Hello) -> MessageStream:
        self.dialed.append(to)
        self.most = max(self.most, len(self.dialed))
        try:
            await trio.sleep_forever()
        finally:
            self.dialed.remove(to)
        raise AssertionError


async def test_strangers_are_dialed_a_few_at_a_time_and_nodes_of_the_cluster_wait_for_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine, network = Machine(the_hub(), "a"), Silence()
    peers = Peers(
        network,
        machine.hello,
        machine,
        TrioClock(),
        random.Random(1),
        is_member=lambda node: node == "node",
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(peers.run)
        peers.update({f"stranger {n}": ("stranger", n) for n in range(3000)})
        await trio.sleep(20)
        assert network.most == DIALS_TO_STRANGERS_MAX
        peers.update({"node": ("node", 1)} | {f"stranger {n}": ("s", n) for n in range(3000)})
        await trio.testing.wait_all_tasks_blocked()
        assert ("node", 1) in network.dialed
        nursery.cancel_scope.cancel()


async def test_names_of_peers_are_those_that_certificates_proved_and_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Machine(the_hub(), "a")
    async with running(machine):
        for number in range(NAMES_MAX + 10):
            stream = Scripted(Hello("c", f"id {number}", f"name {number}"), proven=True)
            stream.says(PeerUnavailable("it is gone"))
            await machine.peers.serve(stream)
        plain = Scripted(Hello("c", "plain", "no certificate"))
        plain.says(PeerUnavailable("it is gone"))
        await machine.peers.serve(plain)
        names = machine.peers.names()
        assert len(names) == NAMES_MAX
        assert names[f"id {NAMES_MAX}"] == f"name {NAMES_MAX}"
