"""What a node holds of the replicated order: history, and before it what live clients still need.

Enters: notifications in order, where history begins and what has left it, how far clients are.
Leaves: notifications by number, numbers by id and topic, and how many bytes all that takes.
Never: I/O, clocks, knowledge of clients; a bound of its own: history's is replicated, and the other
one is the hub's, which can end streams.

    3 . . 17 . 25 . . 38 39    40 41 42 ... 140
    sparse history, and        window: history without a hole
    former history

History is the same on every node: its window, and before it the last events of each topic, between
which are holes. What has left history is former history: nobody can resume there, but somebody is
on the way through it. It is held until all have passed (`release`).

Readers who ask for it (`?cursor=1`) get the names of positions. The id of the newest event would be
a position too, but often of an event that the reader cannot see; and the newest event that it has
seen falls out of history while others are busy. So a cursor is a number, the same on every node,
with a short digest of the event that stands there: the number of another cluster, or of one that
was restored from a backup, is recognised, and the reader gets a gap. The digest covers all of the
event, time and data too, so that guessing an id confirms nothing; no id and no topic, which the
reader may not be allowed to see, is in it.
"""

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from heapq import merge
from sys import getsizeof

from noti.history.notification import Notification
from noti.streams.former_history import FormerHistory
from noti.streams.sse import BEGINNING, EARLIEST

CURSOR_PREFIX = "noti:"

_CURSOR = re.compile(r"noti:([1-9][0-9]{0,18})-[0-9a-f]{8}")

EVENT_BYTES = 430
"""What an event takes beside its texts: tuples, numbers, the heads of strings, entries of
dictionaries. Measured with tracemalloc (test_retained.py holds it to that): CPython 3.11, an event
of one topic."""

CURSORS_KNOWN_MAX = 1024
"""Cursors that are remembered: new streams and heartbeats ask for the newest, again and again."""
SWEPT_AT_ONCE = 1000
"""Events that are gone and may still stand in lists of topics."""

EDGE = -1
"""The cursor of a reader who begins where history begins when it is first read."""
NOWHERE = -2
"""The cursor of a reader that has lost its own; no read will find it."""
_PARTIAL = -10


def partial(seq: int) -> int:
    """Return the cursor of a reader on its way through sparse history, at this number.

    It knows that history has holes there, as it asked for all there is, or was told of a gap.
    """
    return _PARTIAL - seq


def place_of(cursor: int) -> int:
    """Return up to which number a reader has all that it will get; negative if it has no place."""
    return _PARTIAL - cursor if cursor <= _PARTIAL else cursor


def footprint(notification: Notification) -> int:
    """Return about how many bytes of memory an event takes."""
    _, event_id, topics, data, _, type_, _, _ = notification
    topics_length = len(topics[0]) if len(topics) == 1 else sum(map(len, topics))
    return EVENT_BYTES + getsizeof(data) + len(event_id) + len(type_) + topics_length


def cursor_of(notification: Notification) -> str:
    """Return the place right behind a notification."""
    digest = hashlib.sha256(repr(tuple(notification)).encode("utf-8", "replace")).hexdigest()
    return f"{CURSOR_PREFIX}{notification.seq}-{digest[:8]}"


def seq_in(cursor: str) -> int | None:
    """Return the number in a cursor; None when it is none of ours.

    Whether the notification with this number has this cursor is for the caller to see.
    """
    found = _CURSOR.fullmatch(cursor)
    return int(found[1]) if found else None


class Retained:
    """History, and what is held beyond it."""

    def __init__(self) -> None:
        self.newest_seq = 0
        """The last notification's number; 0 before the first one."""
        self.oldest_seq = 1
        """Where the window begins; `newest_seq + 1` when it is empty."""
        self.lost_through = 0
        """The highest number that has left history."""
        self.freed_through = 0
        """The highest number that is not held any more."""
        self.notifications: dict[int, Notification] = {}
        """All that are held, by number."""
        self._sparse: list[int] = []
        """History before the window, in order."""
        self._former = FormerHistory()
        self._held_bytes = 0
        self._positions: dict[str, int] = {}
        """Where in history an id stands first."""
        self._repeats: dict[str, list[int]] = {}
        """Where it stands again, in order."""
        self._cursors: dict[int, str] = {}
        """Some of those that somebody asked for."""
        self._by_topic: dict[str, list[int]] = {}
        """Where a topic stands, in order; some of that may be gone."""
        self._unswept: dict[str, list[int]] = {}
        """What of `_by_topic` is gone."""
        self._unswept_count = 0

    @property
    def first_seq(self) -> int:
        """History's first number, sparse or not; `newest_seq + 1` when there is no history."""
        return self._sparse[0] if self._sparse else self.oldest_seq

    @property
    def history_bytes(self) -> int:
        """What history takes."""
        return self._held_bytes - self._former.size_bytes

    @property
    def backlog_bytes(self) -> int:
        """What is held beyond history."""
        return self._former.size_bytes

    def beyond(self, cursor: int) -> int:
        """Return how many bytes are held beyond history for a reader at a cursor."""
        place = place_of(cursor)
        return self._former.beyond(place) if place >= 0 else 0

    def between(self, after_seq: int, last_seq: int) -> Iterable[int]:
        """Return the numbers behind one, up to another one, that are held, in order."""
        window = range(max(after_seq + 1, self.oldest_seq), last_seq + 1)
        if after_seq + 1 >= self.oldest_seq:
            return window
        sparse = self._sparse
        before = sparse[bisect_right(sparse, after_seq) : bisect_right(sparse, last_seq)]
        return merge(before, self._former.between(after_seq, last_seq), window)

    def backwards(self) -> Iterable[int]:
        """Return the numbers of history, newest first."""
        yield from range(self.newest_seq, self.oldest_seq - 1, -1)
        yield from reversed(self._sparse)

    def on_topic(self, topic: str) -> Sequence[int]:
        """Return the numbers of what has a topic, in order; some of them may be gone."""
        return self._by_topic.get(topic, ())

    def in_history(self, seq: int) -> bool:
        """Whether one can resume behind this number."""
        if seq >= self.oldest_seq:
            return seq <= self.newest_seq
        at = bisect_left(self._sparse, seq)
        return at < len(self._sparse) and self._sparse[at] == seq

    def extend(self, notifications: Iterable[Notification]) -> None:
        """Add notifications that follow."""
        held, by_topic, positions = self.notifications, self._by_topic, self._positions
        held_bytes, newest_seq = 0, self.newest_seq
        if not held:
            notifications = list(notifications)
            if notifications:
                self.oldest_seq = notifications[0].seq
                newest_seq = self.oldest_seq - 1
        for notification in notifications:
            seq, event_id, topics = notification[:3]
            newest_seq += 1
            assert seq == newest_seq, "a hole in the feed"
            held[seq] = notification
            held_bytes += footprint(notification)
            if positions.setdefault(event_id, seq) != seq:
                self._repeats.setdefault(event_id, []).append(seq)
            for topic in topics if len(topics) == 1 else dict.fromkeys(topics):
                seqs = by_topic.get(topic)
                if seqs is None:
                    by_topic[topic] = [seq]
                else:
                    seqs.append(seq)
        self.newest_seq = newest_seq
        self._held_bytes += held_bytes

    def reset(self, notifications: Sequence[Notification], oldest_seq: int) -> None:
        """Hold nothing but this history, whose window begins at `oldest_seq`."""
        self._clear()
        at = bisect_left(notifications, oldest_seq, key=lambda one: one.seq)
        for notification in notifications[:at]:
            seq = notification.seq
            self._sparse.append(seq)
            self._hold(notification, seq, notification.id)
            for topic in dict.fromkeys(notification.topics):
                self._by_topic.setdefault(topic, []).append(seq)
        self.oldest_seq, self.newest_seq = oldest_seq, oldest_seq - 1
        self.extend(notifications[at:])
        self.lost_through = self.freed_through = self.oldest_seq - 1

    def trim(self, oldest_seq: int, gone: Sequence[int] | None = None) -> None:
        """Let the window begin at `oldest_seq`, and hold what is `gone` until `release`.

        None means all before the window. What was in the window before, and is not gone, is sparse
        history from now on.
        """
        if gone is None:
            before = self.between(0, min(oldest_seq - 1, self.newest_seq))
            gone = [seq for seq in before if self.in_history(seq)]
        left = range(self.oldest_seq, min(oldest_seq, self.newest_seq + 1))
        self.oldest_seq = left.stop if left else self.oldest_seq
        if len(gone) == len(left) and gone == [*left]:
            self._leave_history(left)  # as nearly always
            return
        if len(left) > sum(seq in left for seq in gone):
            lost = set(gone)
            self._sparse += [seq for seq in left if seq not in lost]
        for seq in gone:
            if seq not in left:
                at = bisect_left(self._sparse, seq)
                assert self._sparse[at] == seq, "what leaves history was in it"
                del self._sparse[at]
        self._leave_history(gone)

    def release(self, through_seq: int, count: int) -> list[int]:
        """Hold no former history up to a number, and free at most so many; return what is gone."""
        history_bytes = self.history_bytes
        freed = self._former.take(through_seq, count)
        if not freed:
            return freed
        self.freed_through = max(self.freed_through, freed[-1])
        self._held_bytes = history_bytes + self._former.size_bytes
        held, unswept = self.notifications, self._unswept
        for seq in freed:
            topics = held.pop(seq).topics
            for topic in topics if len(topics) == 1 else dict.fromkeys(topics):
                seqs = unswept.get(topic)
                if seqs is None:
                    unswept[topic] = [seq]
                else:
                    seqs.append(seq)
        self._unswept_count += len(freed)
        if self._unswept_count >= SWEPT_AT_ONCE:
            self._sweep()
        return freed

    @property
    def newest_cursor(self) -> str:
        """Where a reader is who has everything; `beginning` before the first notification."""
        newest = self.notifications.get(self.newest_seq)
        return BEGINNING if newest is None else self._cursor(newest)

    def position_of(self, event_id: str) -> int | None:
        """Return where in history an id, or a cursor of ours, stands: the same on every node.

        On duplicates it is the earliest place. None when history does not hold it.
        """
        if event_id == EARLIEST:
            return EDGE
        if event_id == BEGINNING and self.lost_through == 0:
            return 0
        seq = seq_in(event_id)
        if (
            seq is not None
            and self.in_history(seq)
            and self._cursor(self.notifications[seq]) == event_id
        ):
            return seq
        return self._positions.get(event_id)

    def _hold(self, notification: Notification, seq: int, event_id: str) -> None:
        self.notifications[seq] = notification
        self._held_bytes += footprint(notification)
        if self._positions.setdefault(event_id, seq) != seq:
            self._repeats.setdefault(event_id, []).append(seq)

    def _leave_history(self, seqs: Sequence[int]) -> None:
        held, positions, repeats = self.notifications, self._positions, self._repeats
        self.lost_through = max(self.lost_through, max(seqs, default=0))
        for seq in seqs:
            notification = held[seq]
            self._former.add(seq, footprint(notification))
            if repeats and notification.id in repeats:
                self._leave_place(seq, notification.id)
            else:
                del positions[notification.id]

    def _leave_place(self, seq: int, event_id: str) -> None:
        """Of those at which an id stands."""
        repeats = self._repeats[event_id]
        if self._positions[event_id] == seq:
            self._positions[event_id] = repeats.pop(0)
        else:
            repeats.remove(seq)
        if not repeats:
            del self._repeats[event_id]

    def _sweep(self) -> None:
        for topic, gone in self._unswept.items():
            seqs = self._by_topic[topic]
            gone.sort()
            if seqs[: len(gone)] == gone:
                del seqs[: len(gone)]
            else:
                gone_set = set(gone)
                seqs[:] = [seq for seq in seqs if seq not in gone_set]
            if not seqs:
                del self._by_topic[topic]
        self._unswept.clear()
        self._unswept_count = 0

    def _clear(self) -> None:
        self._sparse.clear()
        self._former.clear()
        self.notifications.clear()
        self._positions.clear()
        self._repeats.clear()
        self._cursors.clear()
        self._by_topic.clear()
        self._unswept.clear()
        self._held_bytes = self._unswept_count = 0

    def _cursor(self, notification: Notification) -> str:
        cursor = self._cursors.get(notification.seq)
        if cursor is None:
            if len(self._cursors) >= CURSORS_KNOWN_MAX:
                self._cursors.clear()
            cursor = self._cursors[notification.seq] = cursor_of(notification)
        return cursor
