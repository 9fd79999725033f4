"""What a node holds of the replicated order: history, and before it what live clients still need.

Enters: notifications in order, where history begins, how far clients are. Leaves: notifications by
number, numbers by id and topic, and how many bytes all that takes.
Never: I/O, clocks, knowledge of clients; a bound of its own: history's is replicated, and the other
one is the hub's, which can end streams.

    first_seq ... oldest_seq - 1     the backlog: nobody can resume here, but somebody is here
    oldest_seq ... newest_seq        history: the same on every node

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
from bisect import bisect_right
from collections.abc import Iterable
from sys import getsizeof

from noti.history.notification import Notification
from noti.streams.sse import BEGINNING, EARLIEST

CURSOR_PREFIX = "noti:"

_CURSOR = re.compile(r"noti:([1-9][0-9]{0,18})-[0-9a-f]{8}")

EVENT_BYTES = 900
"""What an event takes beside its texts: tuples, numbers, entries of dictionaries, the heads of two
frames. Measured with tracemalloc (test_retained.py holds it to that): 840 bytes an event of one
topic with both views in use, CPython 3.11."""
LIST_ENTRY_BYTES = 8
"""An entry in the list of what one audience sees."""
LINE_BYTES = 6
"""What each further line of data adds to a frame: `data: `."""

EDGE = -1
"""The cursor of a reader who begins where history begins when it is first read."""
NOWHERE = -2
"""The cursor of a reader that has lost its own; no read will find it."""


def footprint(notification: Notification, audiences: int) -> int:
    """Return about how many bytes of memory an event takes that so many audiences see."""
    _, event_id, topics, data = notification[:4]
    text = getsizeof(data)
    frame = text if data.isascii() else 2 * text  # UTF-8, at most
    if "\n" in data or "\r" in data:
        frame += LINE_BYTES * (data.count("\n") + data.count("\r"))
    names = 3 * len(event_id) + sum(map(len, topics))
    return EVENT_BYTES + text + frame + names + LIST_ENTRY_BYTES * audiences


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
    """Notifications without a hole, from `first_seq` to `newest_seq`."""

    def __init__(self) -> None:
        self.first_seq = 1
        """The first number that is held; `newest_seq + 1` when none is."""
        self.newest_seq = 0
        """The last notification's number; 0 before the first one."""
        self.oldest_seq = 1
        """History's first number; `newest_seq + 1` when there is no history."""
        self.notifications: dict[int, Notification] = {}
        """By number."""
        self._bytes_through: dict[int, int] = {}
        """Bytes of all notifications up to this one, since the last `clear`."""
        self._evicted_bytes = 0
        self._positions: dict[str, int] = {}
        """Where in history an id stands first."""
        self._repeats: dict[str, list[int]] = {}
        """Where it stands again, in order."""
        self._cursors: dict[int, str] = {}
        """Those of history that somebody asked for."""
        self._by_topic: dict[str, list[int]] = {}
        """Where a topic stands, in order."""

    @property
    def history_bytes(self) -> int:
        """What history takes."""
        return self._through(self.newest_seq) - self._through(self.oldest_seq - 1)

    @property
    def backlog_bytes(self) -> int:
        """What is held beyond history."""
        return self._through(self.oldest_seq - 1) - self._evicted_bytes

    def beyond(self, after_seq: int) -> int:
        """Return how many bytes are held beyond history for a reader at `after_seq`."""
        if not 0 <= after_seq < self.oldest_seq - 1:
            return 0
        return self._through(self.oldest_seq - 1) - self._through(after_seq)

    def on_topics(self, topics: Iterable[str]) -> list[int]:
        """Return the numbers of what has one of these topics, in order."""
        return sorted(set().union(*(self._by_topic.get(topic, ()) for topic in topics)))

    def append(self, notification: Notification, audiences: int) -> None:
        """Add the notification that follows; so many audiences see it."""
        seq, event_id, topics = notification[:3]
        if self.notifications:
            assert seq == self.newest_seq + 1, "a hole in the feed"
        else:
            self.first_seq = self.oldest_seq = seq
        size_bytes = footprint(notification, audiences)
        before_bytes = self._bytes_through.get(self.newest_seq, self._evicted_bytes)
        self._bytes_through[seq] = before_bytes + size_bytes
        self.newest_seq = seq
        self.notifications[seq] = notification
        first = self._positions.setdefault(event_id, seq)
        if first != seq:
            self._repeats.setdefault(event_id, []).append(seq)
        for topic in topics if len(topics) == 1 else set(topics):
            seqs = self._by_topic.get(topic)
            if seqs is None:
                self._by_topic[topic] = [seq]
            else:
                seqs.append(seq)

    def trim(self, oldest_seq: int) -> None:
        """Let history begin at `oldest_seq`; what was before stays held until `evict`."""
        for seq in range(self.oldest_seq, min(oldest_seq, self.newest_seq + 1)):
            event_id = self.notifications[seq].id
            del self._positions[event_id]
            if self._repeats and (repeats := self._repeats.get(event_id)):
                self._positions[event_id] = repeats.pop(0)
                if not repeats:
                    del self._repeats[event_id]
            self._cursors.pop(seq, None)
            self.oldest_seq = seq + 1

    def evict(self, through_seq: int) -> range:
        """Hold nothing up to `through_seq` that is beyond history; return what is gone."""
        first_seq, last_seq = self.first_seq, min(through_seq, self.oldest_seq - 1)
        gone = range(first_seq, last_seq + 1)
        if not gone:
            return gone
        topics: set[str] = set()
        self._evicted_bytes = self._through(last_seq)
        for seq in gone:
            topics.update(self.notifications.pop(seq).topics)
            del self._bytes_through[seq]
        self.first_seq = last_seq + 1
        for topic in topics:
            seqs = self._by_topic[topic]
            del seqs[: bisect_right(seqs, last_seq)]
            if not seqs:
                del self._by_topic[topic]
        return gone

    def clear(self) -> None:
        """Hold nothing."""
        self.first_seq, self.newest_seq, self.oldest_seq, self._evicted_bytes = 1, 0, 1, 0
        self.notifications.clear()
        self._bytes_through.clear()
        self._positions.clear()
        self._repeats.clear()
        self._cursors.clear()
        self._by_topic.clear()

    @property
    def newest_cursor(self) -> str:
        """Where a reader is who has everything; `beginning` before the first notification."""
        return self._cursor(self.newest_seq) if self.notifications else BEGINNING

    def position_of(self, event_id: str) -> int | None:
        """Return where in history an id, or a cursor of ours, stands: the same on every node.

        On duplicates it is the earliest place. None when history does not hold it.
        """
        if event_id == EARLIEST:
            return EDGE
        if event_id == BEGINNING and self.oldest_seq == 1:
            return 0
        seq = seq_in(event_id)
        in_history = seq is not None and self.oldest_seq <= seq <= self.newest_seq
        if seq is not None and in_history and self._cursor(seq) == event_id:
            return seq
        return self._positions.get(event_id)

    def _cursor(self, seq: int) -> str:
        cursor = self._cursors.get(seq)
        if cursor is None:
            cursor = self._cursors[seq] = cursor_of(self.notifications[seq])
        return cursor

    def _through(self, seq: int) -> int:
        return self._bytes_through.get(seq, self._evicted_bytes)
