"""Any node can commit and read through its leader; every request is answered once."""

import pytest
import trio

from noti.errors import ProposalUncertain
from noti.notifications.commands import PublishBatch, encode
from noti.notifications.notification import Event
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
