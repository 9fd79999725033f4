"""The leader ends what nodes had announced that are gone."""

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio
import trio.testing

from noti.history import subscriptions
from noti.history.commands import encode
from noti.history.selectors import SelectorKind
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.history.subscription_commands import SubscriptionBatch
from noti.presence.commits import Commits
from noti.presence.dead_nodes import AGAIN_AFTER_S, LOOK_EVERY_S, UNSEEN_S, DeadNodes
from noti.trio_clock import TrioClock
from tests import promises
from tests.presence.memory_log import MemoryLog

ONE = Subscriber(
    "urn:uuid:00000000-0000-4000-8000-000000000001",
    0,
    (ActiveSubscription(SelectorKind.EXACT, "a"),),
)


class Cluster:
    def __init__(self) -> None:
        self.log = MemoryLog()
        self.leads = True
        self.alive = {"n1", "n2"}
        self.dead: set[str] = set()
        self.announce("n1")
        self.announce("n2")

    def announce(
        self, node_id: str, life: str = "first", opened: tuple[Subscriber, ...] = ()
    ) -> None:
        self.log.apply(encode(SubscriptionBatch(node_id, life, 1, 5, opened, ())))

    def kill(self, node_id: str) -> None:
        self.alive.discard(node_id)
        self.dead.add(node_id)

    def liveness(self) -> tuple[Iterable[str], Iterable[str]]:
        return self.alive, self.dead

    @property
    def announced(self) -> set[str]:
        return set(self.log.store.subscriptions.lives())


@asynccontextmanager
async def watched() -> AsyncIterator[Cluster]:
    cluster, clock = Cluster(), TrioClock()
    watch = DeadNodes(
        cluster.log.store.subscriptions,
        Commits(cluster.log, clock, random.Random(1)),
        lambda: cluster.leads,
        cluster.liveness,
        clock,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        yield cluster
        nursery.cancel_scope.cancel()


@promises.SUBSCRIPTIONS_KNOWN
async def test_dead_node_is_ended_at_the_next_look(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as cluster:
        await trio.sleep(60)
        assert cluster.announced == {"n1", "n2"}
        cluster.kill("n2")
        await trio.sleep(2 * LOOK_EVERY_S)
        assert cluster.announced == {"n1"}


async def test_web_workers_of_a_dead_node_are_ended_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as cluster:
        for holder in ("n1/1", "n2/1", "n2/2"):
            cluster.announce(holder)
        await trio.sleep(60)
        assert cluster.announced == {"n1", "n1/1", "n2", "n2/1", "n2/2"}
        cluster.kill("n2")
        await trio.sleep(LOOK_EVERY_S + 2)
        assert cluster.announced == {"n1", "n1/1"}


async def test_node_with_many_subscriptions_is_ended_whole(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as cluster:
        many = [
            Subscriber(f"{ONE.id[:-6]}{number:06x}", 0, ONE.subscriptions) for number in range(900)
        ]
        cluster.announce("n3", opened=tuple(many))
        cluster.dead.add("n3")
        assert cluster.log.store.subscriptions.count == 900 > subscriptions.ENDED_AT_ONCE
        await trio.sleep(2 * LOOK_EVERY_S)
        assert cluster.log.store.subscriptions.count == 0
        assert cluster.announced == {"n1", "n2"}


async def test_only_the_leader_ends_nodes(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as cluster:
        cluster.leads = False
        cluster.kill("n2")
        await trio.sleep(60)
        assert cluster.announced == {"n1", "n2"}
        cluster.leads = True
        await trio.sleep(2 * LOOK_EVERY_S)
        assert cluster.announced == {"n1"}


async def test_node_that_gossip_does_not_know_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as cluster:
        cluster.alive.discard("n2")
        await trio.sleep(UNSEEN_S - LOOK_EVERY_S)
        assert cluster.announced == {"n1", "n2"}
        cluster.alive.add("n2")
        await trio.sleep(UNSEEN_S)
        cluster.alive.discard("n2")
        await trio.sleep(UNSEEN_S - LOOK_EVERY_S)
        assert cluster.announced == {"n1", "n2"}
        await trio.sleep(3 * LOOK_EVERY_S)
        assert cluster.announced == {"n1"}


async def test_node_that_objects_is_not_ended_again_and_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Gossip between it and the leader is broken, and the log is not."""
    async with watched() as cluster:
        cluster.kill("n2")
        await trio.sleep(2 * LOOK_EVERY_S)
        cluster.announce("n2", "second")
        await trio.sleep(AGAIN_AFTER_S - 3 * LOOK_EVERY_S)
        assert cluster.announced == {"n1", "n2"}
        await trio.sleep(5 * LOOK_EVERY_S)
        assert cluster.announced == {"n1"}


async def test_node_that_came_back_and_died_again_is_ended_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as cluster:
        cluster.kill("n2")
        await trio.sleep(2 * LOOK_EVERY_S)
        cluster.alive.add("n2")
        cluster.announce("n2", "second")
        await trio.sleep(2 * LOOK_EVERY_S)
        assert cluster.announced == {"n1", "n2"}
        cluster.alive.discard("n2")
        await trio.sleep(2 * LOOK_EVERY_S)
        assert cluster.announced == {"n1"}
