"""The state machine that Raft drives: the store, and the audience of what became visible.

Enters: committed commands, snapshots. Leaves: notifications to the audience, in order.
Never: waits for the audience, I/O.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from noti.history.notification import Event, Notification
from noti.history.store import Store


class HistoryObserver(Protocol):
    """Those who show notifications to browsers: `Hub` in `noti.streams`, on every node."""

    def publish(self, notifications: Sequence[Notification]) -> None:
        """Show what has just become visible; never waits."""

    def trim(self, oldest_seq: int, gone: Sequence[int]) -> None:
        """Let nobody resume into what history has lost: the same on every node.

        From `oldest_seq` on, history has no holes: that is its window. `gone` are the numbers that
        the last command took from history, in no promised order. What is before `oldest_seq` and
        was never in `gone` is history still: the last events of a topic. Whether readers of a topic
        at some cursor have lost something, says `Store.lost_through`.
        """

    def reset(self, notifications: Sequence[Notification], oldest_seq: int) -> None:
        """Start anew with this history; numbers may have jumped.

        Those before `oldest_seq` have holes between them, those from there on none.
        """

    def disconnect(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        subscriber: str | None = None,
    ) -> int:
        """End the streams of this node that have all of these; return how many; never waits."""


class AppliedObserver(Protocol):
    """Those who follow single events: `EventTrail` in `noti.tracing`."""

    def applied(
        self, log_index: int, visible: Sequence[Notification], published: Sequence[Event]
    ) -> None:
        """Note what a command has made visible, at least one event; never waits.

        `published` are the events in the command, in its order, shown or not; none if they are the
        cluster's own.
        """


class HistoryStateMachine:
    """A store with an audience; what Raft calls its `StateMachine` (`noti.raft.ports`)."""

    def __init__(
        self, store: Store, audience: HistoryObserver, trail: AppliedObserver | None = None
    ) -> None:
        """Join the two; the audience starts empty. `trail` hears of all that becomes visible."""
        self._store = store
        self._audience = audience
        self._trail = trail

    def apply(self, command: bytes, log_index: int = 0) -> None:
        """Carry out one committed command; raises what `Store.apply` raises."""
        visible = self._store.apply(command)
        if visible:
            self._audience.publish(visible)
            if self._trail is not None:
                self._trail.applied(log_index, visible, self._store.published)
        for subscriber in self._store.subscriptions.take_disconnected():
            self._audience.disconnect(subscriber=subscriber)
        self._end_revoked()
        self._audience.trim(self._store.first_seq, self._store.gone)

    def snapshot_pieces(self) -> Iterator[bytes]:
        """Return the store's whole state as it is now, encoded piece by piece."""
        return self._store.snapshot_pieces()

    def restore(self, state: object) -> None:
        """Replace the store's state by one that `Store.decode` returned, and tell the audience."""
        assert isinstance(state, Store)
        self._store.restore(state)
        self._audience.reset(self._store.history(), self._store.first_seq)
        self._end_revoked()

    def _end_revoked(self) -> None:
        for one in self._store.revocations.take_news():
            self._audience.disconnect(subject=one.subject or None, token_id=one.token_id or None)
