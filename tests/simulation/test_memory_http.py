"""Publishing over HTTP at any node, and tokens that expire, in virtual time."""

import trio

from noti.publishing.ports import Draft
from tests.simulation.deterministic import run_deterministically
from tests.simulation.memory_http import post
from tests.simulation.world import Settings, SimulatedCluster


def test_event_that_is_posted_at_any_node_and_again_at_another_is_shown_once() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1)
            await cluster.start()
            await cluster.wait_leader()
            draft = Draft(("a", "b"), '{"user_id":1,"x":1}', "one", type="news", private=True)
            for machine in cluster.nodes:
                assert await post(machine.clients, draft) == 200
            [shown] = cluster.checks.shown
            assert (shown.id, shown.topics, shown.type) == ("one", ("a", "b"), "news")
            assert shown.private
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)


def test_post_without_a_leader_commits_nothing_and_a_dead_process_says_nothing() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1)
            await cluster.start()
            await cluster.wait_leader()
            one, *others = cluster.nodes
            for machine in others:
                await machine.crash()
            draft = Draft(("a",), '{"user_id":1,"x":1}', "one")
            assert await post(one.clients, draft) in (503, 504)
            assert await post(others[0].clients, draft) is None
            assert cluster.checks.shown == []
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)


def test_streams_end_with_their_tokens_and_browsers_with_new_ones_miss_nothing() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            settings = Settings(browsers=2, token_s=3.0)
            cluster = SimulatedCluster(nursery, 1, settings=settings)
            ended: list[str] = []
            cluster.browsers[0].happened = ended.append
            await cluster.start()
            await cluster.wait_leader()
            for _ in range(40):
                cluster.publish()
                await trio.sleep(0.5)
            await cluster.wait_everything_seen()
            cluster.check_browsers()
            assert ended.count("a stream ended with its token") >= 3
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)
