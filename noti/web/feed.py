"""Turns notifications into bytes for any reader at any place, each piece of work done once.

Enters: notifications in order, and (audience, cursor) pairs. Leaves: joined event-stream bytes.
Never: I/O, clocks, knowledge of clients; a reader is a number, the `seq` of the last notification
it has.

What is shared: a notification's frame is built once per view; it is matched once per audience;
everyone of one audience at one cursor gets the same bytes object.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from noti.notifications.notification import Notification
from noti.notifications.topics import matches
from noti.web import sse

JOINED_MAX = 256
"""Joined byte strings kept for sharing; with reads of 64 KiB at most 16 MiB."""


class View(Enum):
    """How a notification is shown."""

    MERCURE = "mercure"
    """Its data as it is."""
    CATEGORY = "category"
    """One line of text; notifications that are no category message are left out."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Readers who see the same: equal view, equal selectors (a notification is seen if any selector
    matches).
    """

    view: View
    selectors: frozenset[str]


@dataclass(frozen=True)
class Batch:
    """What a reader gets next."""

    data: bytes
    """Whole frames, joined; empty when nothing between the cursors is for this audience."""
    seq: int
    """The reader's cursor once it has `data`."""
    events: int
    """How many frames `data` holds."""

    @cached_property
    def chunk(self) -> bytes:
        """`data` as one HTTP/1.1 chunk, built once for all who share this batch."""
        return sse.chunk(self.data)


@dataclass(frozen=True, slots=True)
class FellBehind:
    """The cursor points outside of history: something between it and `oldest_seq` is gone."""

    oldest_seq: int


class Feed:
    """The last `size` notifications, readable from any cursor."""

    def __init__(self, size: int) -> None:
        assert size > 0, "a feed without history cannot serve anybody"
        self._size = size
        self._notifications: dict[int, Notification] = {}
        self._frames: dict[View, dict[int, bytes | None]] = {view: {} for view in View}
        self._positions: dict[str, list[int]] = {}
        self._lanes: dict[Audience, _Lane] = {}
        self._joined: dict[tuple[Audience, int, int, int], Batch] = {}
        self._newest_seq = 0

    @property
    def newest_seq(self) -> int:
        """The last notification's number; 0 before the first one."""
        return self._newest_seq

    @property
    def oldest_seq(self) -> int:
        """The first retained notification's number; `newest_seq + 1` when none is retained."""
        return self._newest_seq - len(self._notifications) + 1

    @property
    def newest_id(self) -> str:
        """The id from which a reader who has everything resumes; `beginning` without history."""
        last = self._notifications.get(self._newest_seq)
        return sse.BEGINNING if last is None else last.id

    def extend(self, notifications: Iterable[Notification]) -> None:
        """Add notifications that follow the newest one; the oldest ones give way."""
        for notification in notifications:
            expected = self._newest_seq + 1
            assert not self._notifications or notification.seq == expected, "a hole in the feed"
            self._append(notification)
            if len(self._notifications) > self._size:
                self._evict()
        self._joined.clear()

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Forget everything and take `notifications` for the whole history (after a snapshot)."""
        self._notifications.clear()
        self._positions.clear()
        self._lanes.clear()
        for frames in self._frames.values():
            frames.clear()
        self._newest_seq = 0
        self.extend(notifications)

    def position_of(self, event_id: str) -> int | None:
        """Return where `event_id` stands, in constant time; on duplicates the earliest place.

        `earliest` stands before everything. None when history does not hold the id.
        """
        if event_id == sse.EARLIEST:
            return self.oldest_seq - 1
        if event_id == sse.BEGINNING and self.oldest_seq == 1:
            return 0
        places = self._positions.get(event_id)
        return places[0] if places else None

    def read(
        self, audience: Audience, after_seq: int, bytes_max: int, *, through_seq: int | None = None
    ) -> Batch | FellBehind:
        """Return what `audience` sees after `after_seq`, up to `through_seq` (default: the newest).

        Stops early rather than pass `bytes_max`, but always returns at least one frame if there is
        one, so that reading on from `Batch.seq` comes to the end.
        """
        last_seq = self._newest_seq if through_seq is None else through_seq
        if not self.oldest_seq - 1 <= after_seq <= self._newest_seq:
            return FellBehind(self.oldest_seq)
        key = (audience, after_seq, last_seq, bytes_max)
        batch = self._joined.get(key)
        if batch is None:
            if len(self._joined) >= JOINED_MAX:
                self._joined.clear()
            batch = self._joined[key] = self._join(audience, after_seq, last_seq, bytes_max)
        return batch

    def forget(self, audience: Audience) -> None:
        """Drop what is kept for an audience without readers; reading again brings it back."""
        self._lanes.pop(audience, None)

    def _append(self, notification: Notification) -> None:
        seq = notification.seq
        self._newest_seq = seq
        self._notifications[seq] = notification
        self._positions.setdefault(notification.id, []).append(seq)

    def _evict(self) -> None:
        seq = self.oldest_seq
        notification = self._notifications.pop(seq)
        for frames in self._frames.values():
            frames.pop(seq, None)
        places = self._positions[notification.id]
        assert places[0] == seq, "positions are in order"
        del places[0]
        if not places:
            del self._positions[notification.id]

    def _join(self, audience: Audience, after_seq: int, last_seq: int, bytes_max: int) -> Batch:
        seqs = self._lane(audience).seqs
        pieces: list[bytes] = []
        size_bytes = 0
        cursor = after_seq
        for position in range(bisect_right(seqs, after_seq), bisect_right(seqs, last_seq)):
            frame = self._frame(audience.view, seqs[position])
            assert frame is not None, "lanes hold only what can be shown"
            if pieces and size_bytes + len(frame) > bytes_max:
                return Batch(b"".join(pieces), cursor, len(pieces))
            pieces.append(frame)
            size_bytes += len(frame)
            cursor = seqs[position]
        return Batch(b"".join(pieces), max(last_seq, after_seq), len(pieces))

    def _lane(self, audience: Audience) -> "_Lane":
        """Return the audience's lane with everything up to now matched, each notification once."""
        oldest_seq = self.oldest_seq
        lane = self._lanes.setdefault(audience, _Lane(oldest_seq - 1))
        for seq in range(max(lane.matched_through, oldest_seq - 1) + 1, self._newest_seq + 1):
            topics = self._notifications[seq].topics
            wanted = any(matches(selector, topics) for selector in audience.selectors)
            if wanted and self._frame(audience.view, seq) is not None:
                lane.seqs.append(seq)
        lane.matched_through = self._newest_seq
        stale = bisect_right(lane.seqs, oldest_seq - 1)
        if stale > len(lane.seqs) // 2:
            del lane.seqs[:stale]
        return lane

    def _frame(self, view: View, seq: int) -> bytes | None:
        frames = self._frames[view]
        if seq not in frames:
            notification = self._notifications[seq]
            text = (
                notification.data if view is View.MERCURE else sse.category_text(notification.data)
            )
            frames[seq] = None if text is None else sse.event_frame(notification.id, text)
        return frames[seq]


@dataclass(slots=True)
class _Lane:
    """The retained notifications that one audience sees (and some that are gone, until half of it
    is).
    """

    matched_through: int
    seqs: list[int] = field(default_factory=list)
