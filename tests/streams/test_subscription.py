"""Promises of the reader for ordinary responses."""

import trio
import trio.testing

from noti.history.selectors import ALL_TOPICS
from noti.streams import sse
from noti.streams.feed import Audience, View
from noti.streams.open_streams import Reader
from noti.streams.subscription import Subscription
from tests.http.stage import hub, ids, notifications, running, until

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))


async def test_a_subscription_reads_the_same_and_ends_with_the_hub(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub()
    async with running(there):
        with Subscription(there, Reader(ALL, 0, "127.0.0.1", wants_cursors=True)) as subscription:
            assert there.clients == 1
            there.publish(notifications(1, 2))
            assert ids((await subscription.next() or b"").decode()) == ["id-1", "id-2"]
            assert await subscription.next() == b":\n" + sse.cursor(
                there.feed.retained.newest_cursor
            )
            there.publish(notifications(3, 20))
            there.trim(16)
            assert ids((await subscription.next() or b"").decode())[0] == "id-3"
        assert there.clients == 0
        with Subscription(there, Reader(ALL, 20, "127.0.0.1")) as subscription:
            assert await subscription.next() == b":\n"
            there.drain()
            assert await subscription.next() is None


async def test_a_subscription_whose_place_is_gone_ends() -> None:
    there = hub(backlog_bytes=20_000)
    async with running(there):
        with Subscription(there, Reader(ALL, 0, "127.0.0.1")) as subscription:
            there.publish(notifications(1, 2))
            assert await subscription.next() is not None
            there.publish(notifications(3, 100))
            there.trim(96)
            await until(lambda: there.feed.retained.backlog_bytes == 0)
            assert await subscription.next() is None
    assert there.clients == 0


async def test_a_subscription_ends_at_the_second_at_which_its_token_expires(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub()
    async with running(there):
        ends_at = trio.current_time() + 5.0
        with Subscription(there, Reader(ALL, 0, "", ends_at=ends_at)) as subscription:
            there.publish(notifications(1, 1))
            assert await subscription.next() is not None
            assert await subscription.next() is None
            assert trio.current_time() == ends_at
            there.publish(notifications(2, 2))
            assert await subscription.next() is None, "nothing that came later, either"


async def test_a_subscription_of_a_subject_is_ended_at_once() -> None:
    there = hub()
    async with running(there):
        with Subscription(there, Reader(ALL, 0, "", subject="7")) as subscription:
            there.publish(notifications(1, 1))
            assert there.disconnect(subject="7") == 1
            assert await subscription.next() is None
