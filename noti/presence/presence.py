"""What requests need of presence: names for their streams, the table, the end of a subscriber."""

import uuid
from collections.abc import Callable, Iterable

from noti.history.selectors import Selector
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.history.subscription_commands import EndSubscriber
from noti.history.subscriptions import SubscriptionTable
from noti.ports import Clock
from noti.presence.commits import Commits


class Presence:
    """The subscriptions of the cluster, at one node."""

    def __init__(
        self,
        table: SubscriptionTable,
        commits: Commits,
        clock: Clock,
        make_id: Callable[[], str],
    ) -> None:
        """Prepare; `make_id` returns 64 random bits in hexadecimal digits, each time others."""
        self.table = table
        self._commits = commits
        self._clock = clock
        self._make_id = make_id

    def new_subscriber(
        self,
        version: int,
        selectors: Iterable[Selector],
        payload_of: Callable[[str], str | None],
    ) -> Subscriber:
        """Return what the cluster is to be told of a stream that is about to begin.

        `version` is that of Mercure, 0 or 1; `payload_of` returns JSON, by what the client wrote.
        """
        bits = uuid.UUID(hex=self._make_id() + self._make_id(), version=4)
        subscriptions = [
            ActiveSubscription.to(selector, payload_of(selector.text) or "")
            for selector in selectors
        ]
        subscriptions.sort(key=lambda one: (one.text, one.kind.value))
        return Subscriber(bits.urn, version, tuple(subscriptions))

    async def end(self, subscriber: str) -> None:
        """Return once a subscriber's stream is to end, wherever it is, by its id.

        Tries for as long as it takes; the caller sets the deadline. *Cancellation*: it may end all
        the same.
        """
        await self._commits.commit(EndSubscriber(subscriber, self._clock.wall_ms()))
