"""Promises of the reader for ordinary responses."""

import trio
import trio.testing

from noti.web.feed import Audience, View
from noti.web.subscription import Subscription
from tests.web.stage import hub, ids, notifications, running

ALL = Audience(View.MERCURE, frozenset({"*"}))


async def test_a_subscription_reads_the_same_and_ends_with_the_hub(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub(history_size=5)
    async with running(there):
        with Subscription(there, ALL, 0, "127.0.0.1") as subscription:
            assert there.clients == 1
            there.publish(notifications(1, 2))
            assert ids((await subscription.next() or b"").decode()) == ["id-1", "id-2"]
            assert await subscription.next() == b": \nid: id-2\n\n"
            there.publish(notifications(3, 20))
            assert await subscription.next() is None
        assert there.clients == 0
        with Subscription(there, ALL, 20, "127.0.0.1") as subscription:
            there.drain()
            assert await subscription.next() is None
