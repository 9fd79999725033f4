"""Any node can commit and read through its leader; every request is answered once."""

from typing import cast

import pytest
import trio
import trio.testing

from noti.errors import NotLeader, ProposalRefused, ProposalUncertain
from noti.notifications.commands import PublishBatch, encode
from noti.notifications.notification import Event
from noti.raft.events import Status
from noti.raft.forwarder import Forwarder
from noti.raft.messages import Forward, ForwardAnswer, ForwardOutcome, NodeId, PeerMessage
from noti.raft.replica import Pending, Replica
from tests.simulation.deterministic import run_deterministically
from tests.simulation.world import SimulatedCluster, SimulatedNode


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
        self.begun: list[Pending] = []

    def is_ready_leader(self) -> bool:
        return False

    def status(self) -> Status:
        return cast("Status", self)

    def begin(self, command: bytes) -> Pending:
        self.begun.append(Pending())
        return self.begun[-1]

    def commit(self, position: int, index: int) -> None:
        self.begun[position].place = (index, 1)
        self.begun[position].done.set()

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
        return frozenset({"peer"})


async def test_answer_never_reaches_the_next_life_of_its_asker(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A node counts its requests from 1 after every start. The answer to number 1 of its last
    life would tell it that number 1 of this life is committed."""
    replica, messenger = FakeReplica(), FakeMessenger()
    forwarder = Forwarder("own", cast("Replica", replica))
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        forwarder.peer_connected("peer")
        forwarder.peer_forwarded(Forward("peer", 0, ((1, b"of the last life"),), ()))
        await trio.testing.wait_all_tasks_blocked()
        forwarder.peer_lost("peer")
        forwarder.peer_connected("peer")
        forwarder.peer_forwarded(Forward("peer", 0, ((1, b"of this life"),), ()))
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
    forwarder = Forwarder("own", cast("Replica", FakeReplica(leader="peer")))
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        messenger.full = True
        with pytest.raises(ProposalRefused):
            await forwarder.begin(b"x").wait()
        nursery.cancel_scope.cancel()


async def test_answer_that_found_no_room_is_sent_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replica, messenger = FakeReplica(), FakeMessenger()
    forwarder = Forwarder("own", cast("Replica", replica))
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        forwarder.peer_connected("peer")
        forwarder.peer_forwarded(Forward("peer", 0, ((1, b"x"),), ()))
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
    forwarder = Forwarder("own", cast("Replica", FakeReplica(leader="peer")))
    async with trio.open_nursery() as nursery:
        await nursery.start(forwarder.run, messenger)
        sent = forwarder.begin(b"sent")
        await trio.testing.wait_all_tasks_blocked()
        unsent = forwarder.begin(b"still here")
        forwarder.peer_lost("peer")
        with pytest.raises(ProposalUncertain):
            await sent.wait()
        with pytest.raises(NotLeader):
            await unsent.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert [m for m in messenger.sent if isinstance(m, Forward)] == [
            Forward("own", 0, ((1, b"sent"),), ())
        ]
        nursery.cancel_scope.cancel()
