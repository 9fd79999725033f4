"""Any node can commit and read through its leader; every request is answered once."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
import trio.testing

from noti.completion import Completion, OnDone
from noti.errors import MessageInvalid, NotiError, NotLeader, Overloaded, ProposalUncertain
from noti.history.commands import PublishBatch, encode
from noti.history.notification import Event
from noti.raft.core.messages import Forward, ForwardAnswer, ForwardOutcome, NodeId, PeerMessage
from noti.raft.core.pacing import Pacing
from noti.raft.core.status import Status
from noti.raft.forwarder import (
    ANSWERS_AT_ONCE,
    BATCH_REQUESTS_MAX,
    LATE_ANSWER_S,
    Forwarder,
)
from noti.raft.intake import Intake
from noti.raft.replica import Replica
from noti.trio_clock import TrioClock
from tests import promises
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.world import SimulatedCluster


def command(number: int) -> bytes:
    event = Event(number, f"id-{number}", ("t",), f'{{"user_id":{number},"x":1}}', 0)
    return encode(PublishBatch("direct", (event,)))


def forwarder(simulated: SimulatedNode):  # type: ignore[no-untyped-def]
    assert simulated.report is not None
    return simulated.report._leader


def test_follower_commits_through_the_leader_and_sees_its_own_write() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 3)
            await cluster.start()
            leader = await cluster.wait_leader()
            for number, simulated in enumerate(cluster.nodes, start=1):
                await forwarder(simulated).propose(command(number))
                assert simulated.clients.feed.newest_seq == number
            assert leader.clients.feed.newest_seq == len(cluster.nodes)
            nursery.cancel_scope.cancel()

    run_deterministically(3, main)


def test_many_at_once_are_each_committed_exactly_once() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 4)
            await cluster.start()
            leader = await cluster.wait_leader()
            follower = next(s for s in cluster.nodes if s is not leader)

            async def publish(stream: int) -> None:
                event = Event(1, f"id-{stream}", ("t",), f'{{"user_id":{stream},"x":1}}', 0)
                await forwarder(follower).propose(encode(PublishBatch(f"s{stream}", (event,))))

            async with trio.open_nursery() as publishers:
                for stream in range(60):
                    publishers.start_soon(publish, stream)
            assert follower.clients.feed.newest_seq == 60
            nursery.cancel_scope.cancel()

    run_deterministically(4, main)


@promises.FORWARDED_ANSWERED_ONCE
def test_command_whose_leader_dies_is_uncertain_and_never_repeated() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 5)
            await cluster.start()
            leader = await cluster.wait_leader()
            follower = next(s for s in cluster.nodes if s is not leader)
            for other in cluster.nodes:
                if other not in (leader, follower):
                    await other.stop()

            async def publish() -> None:
                with pytest.raises(ProposalUncertain), trio.fail_after(30):
                    await forwarder(follower).propose(command(1))
                cluster.note("told")

            async with trio.open_nursery() as publishers:
                for simulated in (leader, follower):
                    # The disk takes long enough for the leader to die while it has the command.
                    simulated.disk.latency_s = (0.05, 0.05)
                publishers.start_soon(publish)
                await trio.sleep(0.02)
                await leader.crash()
            assert any(line.endswith("told") for line in cluster.trace)
            nursery.cancel_scope.cancel()

    run_deterministically(5, main)


def test_commands_that_wait_for_a_hand_over_do_not_wake_each_other() -> None:
    """They kept a processor busy until it was over. Found by: just sim seed=25 layer=nodes"""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1)
            await cluster.start()
            leader = await cluster.wait_leader()
            cluster.hub.latency_s = (0.2, 0.2)
            assert leader.report is not None
            consensus = cast("Replica", leader.report._replica)
            submitted, submit = 0, consensus.submit

            def count(command: bytes, on_done: OnDone[int], *, at_once: bool = False) -> None:
                nonlocal submitted
                submitted += 1
                assert submitted < 100, "the same commands again and again, in no time"
                submit(command, on_done, at_once=at_once)

            consensus.submit = count  # type: ignore[method-assign]
            async with trio.open_nursery() as publishers:
                publishers.start_soon(consensus.hand_over)
                await trio.sleep(0.01)
                for number in (1, 2, 3):
                    event = Event(1, f"id-{number}", ("t",), f'{{"user_id":{number},"x":1}}', 0)
                    publishing = encode(PublishBatch(f"s{number}", (event,)))
                    publishers.start_soon(forwarder(leader).propose, publishing)
            await cluster.wait_for(lambda: cluster.last_seqs() == {3})
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)


def test_node_without_a_leader_waits_until_there_is_one() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 6)
            await cluster.start()
            leader = await cluster.wait_leader()
            follower = next(s for s in cluster.nodes if s is not leader)
            others = [s for s in cluster.nodes if s is not follower]
            for other in others:
                await other.crash()

            async def publish() -> None:
                await forwarder(follower).propose(command(1))
                await forwarder(follower).read()

            with trio.fail_after(60):
                async with trio.open_nursery() as publishers:
                    publishers.start_soon(publish)
                    await trio.sleep(5)
                    for other in others:
                        await other.start()
            assert follower.clients.feed.newest_seq == 1
            nursery.cancel_scope.cancel()

    run_deterministically(6, main)


class FakeReplica:
    """Knows a leader, and keeps what it is asked to commit."""

    def __init__(self, leader: NodeId | None = None) -> None:
        self.leader = leader
        self.submitted: list[OnDone[int]] = []
        self.reads: list[Completion[int]] = []
        self.applied = 0
        self._news = trio.lowlevel.ParkingLot()
        self._when_applied: list[tuple[int, OnDone[int]]] = []
        self.leader_changed: Callable[[NodeId | None], None] = lambda _: None

    def is_ready_leader(self) -> bool:
        return False

    def status(self) -> Status:
        return cast("Status", self)

    def is_leader(self) -> bool:
        return False

    def submit(self, command: bytes, on_done: OnDone[int], *, at_once: bool = False) -> None:
        self.submitted.append(on_done)

    async def read_index(self) -> int:
        self.reads.append(Completion())
        return await self.reads[-1].wait()

    async def wait_advanced(self) -> None:
        await self._news.park()

    def when_applied(self, index: int, on_done: OnDone[int]) -> None:
        self._when_applied.append((index, on_done))
        self.advance()

    def advance(self, applied: int = 0, leader: NodeId | None = None) -> None:
        self.applied = max(self.applied, applied)
        self.leader = leader or self.leader
        for index, on_done in self._when_applied.copy():
            if index <= self.applied:
                self._when_applied.remove((index, on_done))
                on_done(index)
        self._news.unpark_all()

    def commit(self, position: int, index: int) -> None:
        self.submitted[position](index)

    def peer_connected(self, node_id: NodeId) -> None:
        pass

    def peer_lost(self, node_id: NodeId) -> None:
        pass


class FakeMessenger:
    """Takes messages while it has room."""

    def __init__(self) -> None:
        self.sent: list[PeerMessage] = []
        self.full = False

    def send(self, to: NodeId, message: PeerMessage) -> bool:
        if not self.full:
            self.sent.append(message)
        return not self.full

    def flush(self) -> None:
        pass

    def connected(self) -> frozenset[NodeId]:
        return frozenset({"peer", "other"})

    def forwards(self) -> list[Forward]:
        return [message for message in self.sent if isinstance(message, Forward)]

    def outcomes(self) -> list[tuple[int, ForwardOutcome, int]]:
        answers = [message for message in self.sent if isinstance(message, ForwardAnswer)]
        return [outcome for answer in answers for outcome in answer.outcomes]


def forwarder_of(replica: FakeReplica) -> Forwarder:
    consensus = cast("Replica", replica)
    clock = TrioClock()
    intake = Intake("own", consensus, Pacing(10.0, reported_within_s=0.5), clock)
    return Forwarder("own", consensus, intake, clock)


@promises.PUBLISHER_GETS_ONE_ANSWER
async def test_answer_never_reaches_the_next_life_of_its_asker(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A node counts its requests from 1 after every start. The answer to number 1 of its last
    life would tell it that number 1 of this life is committed."""
    replica, messenger = FakeReplica(), FakeMessenger()
    forwarder = forwarder_of(replica)
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        forwarder.peer_connected("peer")
        forwarder.forward_received(Forward("peer", 0, ((1, b"of the last life"),), ()))
        await trio.testing.wait_all_tasks_blocked()
        forwarder.peer_lost("peer")
        forwarder.peer_connected("peer")
        forwarder.forward_received(Forward("peer", 0, ((1, b"of this life"),), ()))
        await trio.testing.wait_all_tasks_blocked()
        replica.commit(0, index=7)
        await trio.testing.wait_all_tasks_blocked()
        assert messenger.sent == []
        replica.commit(1, index=8)
        await trio.testing.wait_all_tasks_blocked()
        assert messenger.sent == [ForwardAnswer("own", 0, ((1, ForwardOutcome.DONE, 8),))]
        nursery.cancel_scope.cancel()


async def test_request_that_was_not_sent_is_refused_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    messenger = FakeMessenger()
    forwarder = forwarder_of(FakeReplica(leader="peer"))
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        messenger.full = True
        with pytest.raises(Overloaded):
            await forwarder.propose(b"x")
        nursery.cancel_scope.cancel()


async def test_answer_that_found_no_room_is_sent_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replica, messenger = FakeReplica(), FakeMessenger()
    forwarder = forwarder_of(replica)
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        forwarder.peer_connected("peer")
        forwarder.forward_received(Forward("peer", 0, ((1, b"x"),), ()))
        await trio.testing.wait_all_tasks_blocked()
        messenger.full = True
        replica.commit(0, index=7)
        await trio.testing.wait_all_tasks_blocked()
        messenger.full = False
        await trio.sleep(1)
        assert messenger.sent == [ForwardAnswer("own", 0, ((1, ForwardOutcome.DONE, 7),))]
        nursery.cancel_scope.cancel()


async def test_only_what_the_lost_leader_may_have_is_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    messenger = FakeMessenger()
    forwarder = forwarder_of(FakeReplica(leader="peer"))
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        sent: list[int | NotiError] = []
        unsent: list[int | NotiError] = []
        forwarder.submit(b"sent", sent.append)
        await trio.testing.wait_all_tasks_blocked()
        forwarder.submit(b"still here", unsent.append)
        forwarder.peer_lost("peer")
        assert [type(failure) for failure in sent] == [ProposalUncertain]
        assert [type(failure) for failure in unsent] == [NotLeader]
        await trio.testing.wait_all_tasks_blocked()
        assert [m for m in messenger.sent if isinstance(m, Forward)] == [
            Forward("own", 0, ((1, b"sent"),), ())
        ]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("successor", [None, "other"])
async def test_request_ends_when_its_leader_is_lost_though_the_stream_lives_on(
    successor: NodeId | None, autojump_clock: trio.testing.MockClock
) -> None:
    """A leader that hangs, or was replaced: its stream may break many seconds later."""
    async with forwarding(leader="peer") as (forwarder, replica, _):
        sent: list[int | NotiError] = []
        unsent: list[int | NotiError] = []
        forwarder.submit(b"sent", sent.append)
        await trio.testing.wait_all_tasks_blocked()
        forwarder.submit(b"still here", unsent.append)
        replica.leader_changed("peer")
        assert sent + unsent == [], "it leads on"
        replica.leader = successor
        replica.leader_changed(successor)
        assert [type(failure) for failure in unsent] == [NotLeader]
        assert sent == [], "it may only hand over, and will say what it did"
        await trio.sleep(LATE_ANSWER_S * 1.1)
        assert [type(failure) for failure in sent] == [ProposalUncertain]
        forwarder.forward_received(ForwardAnswer("peer", 0, ((1, ForwardOutcome.DONE, 5),)))
        assert len(sent) == 1, "the late answer finds nobody"


async def test_request_is_answered_by_a_leader_that_only_handed_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What it had not begun goes to its successor, and is nobody's doubt."""
    async with forwarding(leader="peer") as (forwarder, replica, _):
        outcomes: list[int | NotiError] = []
        forwarder.submit(b"held there", outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        replica.leader = "other"
        replica.leader_changed("other")
        forwarder.forward_received(ForwardAnswer("peer", 0, ((1, ForwardOutcome.NOT_LEADER, 0),)))
        await trio.sleep(LATE_ANSWER_S * 1.1)
        assert [type(failure) for failure in outcomes] == [NotLeader]


async def test_read_whose_leader_is_replaced_asks_the_new_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        forwarding(leader="peer") as (forwarder, replica, messenger),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(forwarder.read)
        await trio.testing.wait_all_tasks_blocked()
        replica.leader_changed("other")
        await trio.testing.wait_all_tasks_blocked()
        replica.advance(leader="other", applied=5)
        await trio.testing.wait_all_tasks_blocked()
        assert messenger.forwards() == [Forward("own", 0, (), (n,)) for n in (1, 2)]
        forwarder.forward_received(ForwardAnswer("other", 0, ((2, ForwardOutcome.DONE, 5),)))


FAILURES = [
    (None, ForwardOutcome.DONE),
    (NotLeader(None), ForwardOutcome.NOT_LEADER),
    (Overloaded("full"), ForwardOutcome.OVERLOADED),
    (ProposalUncertain("lost"), ForwardOutcome.UNCERTAIN),
]


@asynccontextmanager
async def forwarding(
    leader: NodeId | None = None,
) -> AsyncIterator[tuple[Forwarder, FakeReplica, FakeMessenger]]:
    replica, messenger = FakeReplica(leader), FakeMessenger()
    forwarder = forwarder_of(replica)
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        for peer in ("peer", "other"):
            forwarder.peer_connected(peer)
        yield forwarder, replica, messenger
        nursery.cancel_scope.cancel()


@promises.FORWARDED_ANSWERED_ONCE
@pytest.mark.parametrize(("failure", "outcome"), FAILURES, ids=lambda value: str(value))
async def test_each_forwarded_request_is_answered_once_with_what_became_of_it(
    failure: NotiError | None, outcome: ForwardOutcome, autojump_clock: trio.testing.MockClock
) -> None:
    """`NOT_LEADER` in place of `UNCERTAIN` would be an event twice, `DONE` in place of anything one
    that is lost."""
    async with forwarding() as (forwarder, replica, messenger):
        # A read never meets a full backlog.
        reads = () if isinstance(failure, Overloaded) else (2,)
        forwarder.forward_received(Forward("peer", 0, ((1, b"x"),), reads))
        await trio.testing.wait_all_tasks_blocked()
        waiting: list[OnDone[int]] = [*replica.submitted, *replica.reads]
        for on_done in waiting:
            on_done(7 if failure is None else failure)
        await trio.sleep(1)
        expected = [(n, outcome, 7 if failure is None else 0) for n in (1, *reads)]
        assert sorted(messenger.outcomes()) == expected


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (ForwardOutcome.NOT_LEADER, NotLeader),
        (ForwardOutcome.OVERLOADED, Overloaded),
        (ForwardOutcome.UNCERTAIN, ProposalUncertain),
    ],
)
async def test_asker_receives_once_what_the_leader_answered_first(
    outcome: ForwardOutcome, failure: type[Exception], autojump_clock: trio.testing.MockClock
) -> None:
    async with forwarding(leader="peer") as (forwarder, _, _):
        told: list[int | NotiError] = []
        forwarder.submit(b"x", told.append)
        await trio.testing.wait_all_tasks_blocked()
        forwarder.forward_received(ForwardAnswer("peer", 0, ((1, outcome, 0), (9, outcome, 0))))
        forwarder.forward_received(ForwardAnswer("peer", 0, ((1, ForwardOutcome.DONE, 0),)))
        assert [type(one) for one in told] == [failure]


async def test_answer_of_anybody_but_the_leader_that_was_asked_is_not_believed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding(leader="peer") as (forwarder, replica, _):
        told: list[int | NotiError] = []
        forwarder.submit(b"x", told.append)
        replica.advance(leader="other")
        await trio.testing.wait_all_tasks_blocked()
        forwarder.forward_received(ForwardAnswer("other", 0, ((1, ForwardOutcome.DONE, 0),)))
        forwarder.forward_received(ForwardAnswer("peer", 0, ((1, ForwardOutcome.UNCERTAIN, 0),)))
        assert [type(one) for one in told] == [ProposalUncertain]


@promises.FORWARDED_ANSWERED_ONCE
async def test_what_an_ex_leader_did_not_take_goes_to_its_successor_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding(leader="peer") as (forwarder, replica, messenger):
        done = trio.Event()

        async def propose() -> None:
            await forwarder.propose(b"x")
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(propose)
            await trio.testing.wait_all_tasks_blocked()
            forwarder.forward_received(
                ForwardAnswer("peer", 0, ((1, ForwardOutcome.NOT_LEADER, 0),))
            )
            await trio.testing.wait_all_tasks_blocked()
            replica.advance(leader="other")
            await trio.testing.wait_all_tasks_blocked()
            sent = [Forward("own", 0, ((number, b"x"),), ()) for number in (1, 2)]
            assert messenger.forwards() == sent
            forwarder.forward_received(ForwardAnswer("other", 0, ((2, ForwardOutcome.DONE, 5),)))
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set(), "who asked shall see its own write, and it is not here yet"
            replica.advance(applied=5)
        assert done.is_set()
        assert messenger.forwards() == sent


@pytest.mark.parametrize(
    "outcome", [ForwardOutcome.NOT_LEADER, ForwardOutcome.OVERLOADED, ForwardOutcome.UNCERTAIN]
)
async def test_read_is_asked_again_until_it_is_confirmed_and_here(
    outcome: ForwardOutcome, autojump_clock: trio.testing.MockClock
) -> None:
    async with forwarding(leader="peer") as (forwarder, replica, messenger):
        done = trio.Event()

        async def read() -> None:
            await forwarder.read()
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            forwarder.forward_received(ForwardAnswer("peer", 0, ((1, outcome, 0),)))
            await trio.testing.wait_all_tasks_blocked()
            replica.advance()
            await trio.testing.wait_all_tasks_blocked()
            assert messenger.forwards() == [Forward("own", 0, (), (n,)) for n in (1, 2)]
            forwarder.forward_received(ForwardAnswer("peer", 0, ((2, ForwardOutcome.DONE, 5),)))
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set(), "not applied here yet"
            replica.advance(applied=5)
        assert done.is_set()


async def test_no_more_than_so_many_requests_of_others_are_under_way_and_room_comes_back(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.raft.forwarder.FORWARDED_MAX", 2)
    async with forwarding() as (forwarder, replica, messenger):
        for first in (1, 11, 21):
            numbers = range(first, first + 3)
            forwarder.forward_received(Forward("peer", 0, tuple((n, b"x") for n in numbers), (5,)))
            await trio.sleep(1)
            refused = [n for n, outcome, _ in messenger.outcomes()]
            assert sorted(refused) == sorted([first + 2, 5])
            messenger.sent.clear()
            for on_done in replica.submitted[-2:]:
                on_done(7)
            await trio.sleep(1)
            done = [(n, outcome) for n, outcome, _ in messenger.outcomes()]
            assert done == [(first, ForwardOutcome.DONE), (first + 1, ForwardOutcome.DONE)]
            messenger.sent.clear()
        assert len(replica.submitted) == 6


async def test_room_that_reads_of_others_took_comes_back(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.raft.forwarder.FORWARDED_MAX", 2)
    async with forwarding() as (forwarder, replica, messenger):
        for _ in range(3):
            for number in (1, 2, 3):
                forwarder.forward_received(Forward("peer", 0, (), (number,)))
            await trio.testing.wait_all_tasks_blocked()
            assert messenger.outcomes() == [(3, ForwardOutcome.OVERLOADED, 0)]
            messenger.sent.clear()
            for completion in replica.reads:
                completion(7)
            await trio.sleep(1)
            done = sorted(messenger.outcomes())
            assert done == [(1, ForwardOutcome.DONE, 7), (2, ForwardOutcome.DONE, 7)]
            messenger.sent.clear()


async def test_all_reads_of_one_message_are_one_question_and_each_is_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    numbers = tuple(range(ANSWERS_AT_ONCE + 3))
    async with forwarding() as (forwarder, replica, messenger):
        forwarder.forward_received(Forward("peer", 0, (), numbers))
        await trio.testing.wait_all_tasks_blocked()
        [question] = replica.reads
        question(7)
        await trio.sleep(1)
        assert messenger.outcomes() == [(number, ForwardOutcome.DONE, 7) for number in numbers]
        longest = max(len(sent.outcomes) for sent in messenger.sent if type(sent) is ForwardAnswer)
        assert longest == ANSWERS_AT_ONCE


async def test_requests_that_wait_together_go_in_messages_of_so_many(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding(leader="peer") as (forwarder, _, messenger):
        async with trio.open_nursery() as nursery:
            for _ in range(3 * BATCH_REQUESTS_MAX // 2):
                nursery.start_soon(forwarder.read)
                forwarder.submit(b"x", lambda _: None)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        sizes = [len(sent.proposals) + len(sent.reads) for sent in messenger.forwards()]
        assert max(sizes) == BATCH_REQUESTS_MAX
        assert sum(sizes) == 3 * BATCH_REQUESTS_MAX


@promises.PEER_NONSENSE_SURVIVED
async def test_node_that_asks_on_and_takes_no_answer_is_no_node(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.raft.forwarder.REQUESTS_MAX", 6)
    both = Forward("peer", 0, ((1, b"x"),), (2, 3))
    async with forwarding() as (forwarder, replica, messenger):
        messenger.full = True
        for _ in range(2):
            forwarder.forward_received(both)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(MessageInvalid, match="6 requests that are not answered"):
            forwarder.forward_received(both)
        forwarder.peer_lost("peer")
        forwarder.peer_connected("peer")
        messenger.full = False
        for _ in range(9):
            forwarder.forward_received(both)
            await trio.testing.wait_all_tasks_blocked()
            waiting: list[OnDone[int]] = [replica.submitted[-1], replica.reads[-1]]
            for on_done in waiting:
                on_done(7)
            await trio.testing.wait_all_tasks_blocked()
        assert len(messenger.outcomes()) == 27, "those that are answered count no more"


async def test_leader_is_asked_no_more_than_it_may_owe(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.raft.forwarder.REQUESTS_MAX", 2)
    async with forwarding(leader="peer") as (forwarder, _, _):
        told: list[int | NotiError] = []
        for _ in range(3):
            forwarder.submit(b"x", told.append)
        assert [type(one) for one in told] == [Overloaded]
        await trio.testing.wait_all_tasks_blocked()
        forwarder.forward_received(ForwardAnswer("peer", 0, ((1, ForwardOutcome.DONE, 0),)))
        forwarder.submit(b"x", told.append)
        assert told[1:] == [0], "and there is room again"
