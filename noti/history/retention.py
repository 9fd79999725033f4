"""Which events are kept: the newest without a hole, and of each topic the last few.

Enters: notifications in order, limits, times before which events expire. Leaves: what is kept, what
has just gone, and up to where a reader of some topics may have lost something.
Never: I/O, clocks; anything in which two nodes could differ.

    sparse events            window
    3 . . 17 . 25 . .    40 41 42 ... 140

The window holds the newest events, bounded in number and, with the sparse ones, in bytes. An event
that falls out of it stays as a sparse one while it is among the last `per_topic` events of one of
its topics. Sparse events take at most half of the bytes, and are at most as many as the window may
hold: so many topics cannot press the newest events out of history, however large they are.

Events that tell of subscriptions (`noti.history.subscriptions`) count apart: users' events are as
many in the window as without them, until there are more of these than `TOLD_MAX` or as events may
be. They outlive no window, as each has a topic of its own and would push others' out.

Topics are tracked for that: at most `topics_max`, of which the least recently published one is
forgotten first. Each remembers the highest number that it has lost, so that a reader of a quiet
topic is not told of a gap because of what others lost. Topics that are not tracked share one such
number. One that is tracked from now on begins with it: a gap may be told where none is, but none is
hidden.

An event of one topic takes 520 bytes beside its data (CPython 3.11, test_store.py holds it to
that), 110 more with floors per topic, 260 more with an idempotency key.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from noti.history.limits import HistoryLimits
from noti.history.notification import Notification, byte_length
from noti.history.topics import RESERVED

TOLD_MAX: Final = 50_000
"""Events about subscriptions that the window may hold, or as many as other events: 20,000 clients
that move to other nodes make 40,000. They take some 50 MB."""


def tells_of_subscription(notification: Notification) -> bool:
    """Return whether an event is the cluster's own, about a subscription."""
    return notification[2][0].startswith(_SUBSCRIPTIONS)


_SUBSCRIPTIONS: Final = RESERVED + "/"


class Kept(NamedTuple):
    """An event that history holds."""

    notification: Notification
    taken_ms: int
    """Wall time at which a node took it, in milliseconds since 1970; it expires by this."""


def window_max(limits: HistoryLimits) -> int:
    """Return how many events the window may hold, those about subscriptions with them."""
    return limits.count + max(limits.count, TOLD_MAX)


@dataclass(slots=True)
class TrackedTopic:
    """One of the topics whose last events outlive the window."""

    lost_through: int
    """The highest number with this topic that was lost, or may have been."""
    seqs: deque[int] = field(default_factory=deque)
    """Its last events, oldest first; all of them are kept."""


def kept_bytes(notification: Notification) -> int:
    """Return what an event counts for `HistoryLimits.size_bytes`."""
    # Joined, as nearly always all of it is ASCII: it is counted for every event, on every node.
    _, event_id, topics, data, _, event_type, _, _ = notification
    return byte_length("".join((data, event_id, event_type, *topics)))


@dataclass(slots=True)
class Retention:
    """What is kept, within limits that are part of the replicated state."""

    limits: HistoryLimits = field(default_factory=HistoryLimits)
    last_seq: int = 0
    """The newest number ever given."""
    window: deque[Kept] = field(default_factory=deque)
    sparse: OrderedDict[int, Kept] = field(default_factory=OrderedDict)
    """Older ones by number, in order."""
    topics: OrderedDict[str, TrackedTopic] = field(default_factory=OrderedDict)
    """Least recently published first."""
    size_bytes: int = 0
    """Of all that is kept."""
    sparse_bytes: int = 0
    lost_through: int = 0
    """The highest number that was lost at all."""
    untracked_lost_through: int = 0
    """The highest number with a topic that was not tracked then."""
    told: int = 0
    """Events about subscriptions in the window."""
    protecting: dict[int, int] = field(default_factory=dict)
    """Number of an event -> how many topics have it among their last."""
    gone: list[Notification] = field(default_factory=list, compare=False)
    """What was lost since `take_gone`."""

    @property
    def first_seq(self) -> int:
        """Where the window begins; `last_seq + 1` when it is empty."""
        return self.last_seq - len(self.window) + 1

    @property
    def oldest(self) -> Kept | None:
        """The oldest event that is kept."""
        for kept in self.sparse.values():
            return kept
        return self.window[0] if self.window else None

    def all(self) -> Iterator[Kept]:
        """Return everything that is kept, in order."""
        yield from self.sparse.values()
        yield from self.window

    def find(self, seq: int) -> Kept | None:
        """Return the event with this number, if it is kept."""
        if seq >= self.first_seq:
            return self.window[seq - self.first_seq] if seq <= self.last_seq else None
        return self.sparse.get(seq)

    def take_gone(self) -> list[Notification]:
        """Return what was lost since the last call, in the order in which it was."""
        gone, self.gone = self.gone, []
        return gone

    def lost(self, topics: Iterable[str] | None) -> int:
        """Return the highest number that readers of these topics may have lost; None means all."""
        if topics is None:
            return self.lost_through
        return max((self._lost_of(topic) for topic in topics), default=0)

    def append(self, notification: Notification, taken_ms: int) -> None:
        """Add the event that follows; `trim` must be called before anybody looks."""
        self.extend([notification], taken_ms)

    def extend(self, notifications: Sequence[Notification], taken_ms: int) -> None:
        """Add the events that follow, as `append` does."""
        if not notifications:
            return
        self.last_seq += len(notifications)
        assert notifications[-1].seq == self.last_seq, "a hole in history"
        told = list(map(tells_of_subscription, notifications))
        self.told += sum(told)
        if self.limits.per_topic:
            for notification, tells in zip(notifications, told, strict=True):
                if not tells:
                    self._protect(notification)
        # Made as tuples are: the call that names fields takes three times as long.
        self.window.extend(
            [tuple.__new__(Kept, (notification, taken_ms)) for notification in notifications]
        )
        self.size_bytes += sum(map(kept_bytes, notifications))

    def trim(self) -> None:
        """Let go what the limits do not allow."""
        limits = self.limits
        if not (self.told or self.topics or self.sparse):
            self._trim_plain()
        while True:
            while len(self.sparse) > limits.count or self.sparse_bytes > limits.size_bytes // 2:
                self._lose_oldest()
            if (
                len(self.window) - self.told <= limits.count
                and self.told <= max(limits.count, TOLD_MAX)
                and self.size_bytes <= limits.size_bytes
            ):
                return
            if not self.window:
                return
            kept = self.window.popleft()
            notification = kept.notification
            self.told -= tells_of_subscription(notification)
            if notification.seq in self.protecting:
                self.sparse[notification.seq] = kept
                self.sparse_bytes += kept_bytes(notification)
            else:
                self._lose(notification)

    def _trim_plain(self) -> None:
        """Do so where all is in the window and nobody has part of it apart: most of the time."""
        window, gone, size_bytes = self.window, self.gone, self.size_bytes
        surplus, bytes_max = len(window) - self.limits.count, self.limits.size_bytes
        if surplus <= 0 and size_bytes <= bytes_max:
            return
        while window and (surplus > 0 or size_bytes > bytes_max):
            notification = window.popleft()[0]
            size_bytes -= kept_bytes(notification)
            gone.append(notification)
            surplus -= 1
        self.size_bytes = size_bytes
        self.lost_through = max(self.lost_through, gone[-1].seq)
        self.untracked_lost_through = max(self.untracked_lost_through, gone[-1].seq)

    def expire(self, before_ms: int) -> None:
        """Let the oldest events go, up to the first that was not taken before this time."""
        while (oldest := self.oldest) is not None and oldest.taken_ms < before_ms:
            self._lose_oldest()

    def set_limits(self, limits: HistoryLimits) -> None:
        """Keep within other limits from now on."""
        before, self.limits = self.limits, limits
        if (before.per_topic, before.topics_max) != (limits.per_topic, limits.topics_max):
            self._track_anew()
        self.trim()

    def _lost_of(self, topic: str) -> int:
        if topic.startswith(_SUBSCRIPTIONS):
            return self.lost_through
        tracked = self.topics.get(topic)
        return self.untracked_lost_through if tracked is None else tracked.lost_through

    # --- topics -----------------------------------------------------------------------------------

    def _protect(self, notification: Notification) -> None:
        """Let an event be the last one of its topics."""
        seq, topics = notification.seq, notification.topics
        for topic in topics if len(topics) == 1 else dict.fromkeys(topics):
            tracked = self.topics.get(topic)
            if tracked is None:
                tracked = self.topics[topic] = TrackedTopic(self.untracked_lost_through)
                if len(self.topics) > self.limits.topics_max:
                    self._forget(self.topics.popitem(last=False)[1])
            else:
                self.topics.move_to_end(topic)
            tracked.seqs.append(seq)
            self.protecting[seq] = self.protecting.get(seq, 0) + 1
            if len(tracked.seqs) > self.limits.per_topic:
                self._release(tracked.seqs.popleft())

    def _release(self, seq: int) -> None:
        """One topic less has this event among its last."""
        topics = self.protecting.pop(seq) - 1
        if topics:
            self.protecting[seq] = topics
        elif seq in self.sparse:
            self._lose_sparse(seq)

    def _forget(self, tracked: TrackedTopic) -> None:
        """A topic is not tracked any more."""
        self.untracked_lost_through = max(self.untracked_lost_through, tracked.lost_through)
        for seq in tracked.seqs:
            self._release(seq)

    def _track_anew(self) -> None:
        """Find the last events of each topic among those that are kept."""
        known, self.topics = self.topics, OrderedDict()
        self.protecting.clear()
        if self.limits.per_topic:
            for kept in list(self.all()):
                if not tells_of_subscription(kept.notification):
                    self._protect(kept.notification)
        for topic, tracked in known.items():
            if topic in self.topics:
                found = self.topics[topic]
                found.lost_through = max(found.lost_through, tracked.lost_through)
            else:
                self._forget(TrackedTopic(tracked.lost_through))
        for seq in [seq for seq in self.sparse if seq not in self.protecting]:
            self._lose_sparse(seq)

    # --- losing -----------------------------------------------------------------------------------

    def _lose_oldest(self) -> None:
        """Whatever topic has it among its last."""
        if self.sparse:
            seq, kept = self.sparse.popitem(last=False)
            self.sparse_bytes -= kept_bytes(kept.notification)
        else:
            kept = self.window.popleft()
            seq = kept.notification.seq
            self.told -= tells_of_subscription(kept.notification)
        if self.protecting.pop(seq, 0):
            for topic in dict.fromkeys(kept.notification.topics):
                tracked = self.topics.get(topic)
                if tracked is not None and tracked.seqs and tracked.seqs[0] == seq:
                    tracked.seqs.popleft()
        self._lose(kept.notification)

    def _lose_sparse(self, seq: int) -> None:
        notification = self.sparse.pop(seq).notification
        self.sparse_bytes -= kept_bytes(notification)
        self._lose(notification)

    def _lose(self, notification: Notification) -> None:
        seq = notification.seq
        self.size_bytes -= kept_bytes(notification)
        self.lost_through = max(self.lost_through, seq)
        self.gone.append(notification)
        if tells_of_subscription(notification):
            return  # its readers look at `lost_through`
        if not self.topics:
            self.untracked_lost_through = max(self.untracked_lost_through, seq)
            return
        for topic in notification.topics:
            tracked = self.topics.get(topic)
            if tracked is None:
                self.untracked_lost_through = max(self.untracked_lost_through, seq)
            else:
                tracked.lost_through = max(tracked.lost_through, seq)
