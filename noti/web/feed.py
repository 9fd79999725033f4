"""Turns notifications into bytes for any reader at any place, each piece of work done once.

Enters: notifications in order, and (audience, cursor) pairs. Leaves: joined event-stream bytes.
Never: I/O, clocks, knowledge of clients; a reader is a number, the `seq` of the last notification
it has.

What is shared: a notification's frame is built once per view; it is matched once, and only with the
audiences that name one of its topics or want more than single topics; everyone of one audience at
one cursor gets the same bytes object.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from noti.notifications.notification import Notification
from noti.notifications.topics import is_exact, matches
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

    @property
    def is_exact(self) -> bool:
        """Whether each selector covers one topic only."""
        return all(map(is_exact, self.selectors))


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
        self._positions: dict[str, int] = {}
        """Where an id stands first."""
        self._repeats: dict[str, list[int]] = {}
        """Where it stands again, in order."""
        self._by_topic: dict[str, list[int]] = {}
        """Where a topic stands, in order."""
        self._lanes: dict[Audience, list[int]] = {}
        """What each watched audience sees: retained notifications, and some that are gone, until
        half of them are.
        """
        self._naming: dict[str, dict[Audience, None]] = {}
        """Watched audiences by the topics that they name, if they want single topics only."""
        self._others: dict[Audience, None] = {}
        """Watched audiences that have to be tried with every notification."""
        self._stirred: dict[Audience, None] = {}
        self._matched_through = 0
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
        self._evict(len(self._notifications) - self._size)
        self._joined.clear()

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Forget everything and take `notifications` for the whole history (after a snapshot)."""
        self._notifications.clear()
        self._positions.clear()
        self._repeats.clear()
        self._by_topic.clear()
        for lane in self._lanes.values():
            lane.clear()
        for frames in self._frames.values():
            frames.clear()
        self._newest_seq = self._matched_through = 0
        self.extend(notifications)

    def position_of(self, event_id: str) -> int | None:
        """Return where `event_id` stands, in constant time; on duplicates the earliest place.

        `earliest` stands before everything. None when history does not hold the id.
        """
        if event_id == sse.EARLIEST:
            return self.oldest_seq - 1
        if event_id == sse.BEGINNING and self.oldest_seq == 1:
            return 0
        return self._positions.get(event_id)

    def read(
        self, audience: Audience, after_seq: int, bytes_max: int, *, through_seq: int | None = None
    ) -> Batch | FellBehind:
        """Return what `audience` sees after `after_seq`, up to `through_seq` (default: the newest).

        Stops early rather than pass `bytes_max`, but always returns at least one frame if there is
        one, so that reading on from `Batch.seq` comes to the end.
        """
        last_seq = self._newest_seq
        if through_seq is not None:
            last_seq = min(last_seq, through_seq)
        if not self.oldest_seq - 1 <= after_seq <= self._newest_seq:
            return FellBehind(self.oldest_seq)
        key = (audience, after_seq, last_seq, bytes_max)
        batch = self._joined.get(key)
        if batch is None:
            if len(self._joined) >= JOINED_MAX:
                self._joined.clear()
            batch = self._joined[key] = self._join(audience, after_seq, last_seq, bytes_max)
        return batch

    def watch(self, audience: Audience) -> None:
        """Match what comes with an audience, until `forget`. Reading does so too."""
        if audience in self._lanes:
            return
        self._match_new()
        exact = audience.is_exact
        if exact:
            for selector in audience.selectors:
                self._naming.setdefault(selector, {})[audience] = None
            places = (self._by_topic.get(selector, ()) for selector in audience.selectors)
            seqs: Iterable[int] = sorted(set().union(*places))
        else:
            self._others[audience] = None
            seqs = self._notifications
        self._lanes[audience] = [seq for seq in seqs if self._sees(audience, seq)]

    def forget(self, audience: Audience) -> None:
        """Drop what is kept for an audience without readers; reading again brings it back."""
        if self._lanes.pop(audience, None) is None:
            return
        self._stirred.pop(audience, None)
        self._others.pop(audience, None)
        if audience.is_exact:
            for selector in audience.selectors:
                naming = self._naming[selector]
                del naming[audience]
                if not naming:
                    del self._naming[selector]

    def stirred(self) -> list[Audience]:
        """Return the watched audiences for whom something came since the last call."""
        self._match_new()
        stirred = list(self._stirred)
        self._stirred.clear()
        return stirred

    def _append(self, notification: Notification) -> None:
        seq, event_id, topics = notification[:3]
        self._newest_seq = seq
        self._notifications[seq] = notification
        first = self._positions.setdefault(event_id, seq)
        if first != seq:
            self._repeats.setdefault(event_id, []).append(seq)
        for topic in topics if len(topics) == 1 else set(topics):
            places = self._by_topic.get(topic)
            if places is None:
                self._by_topic[topic] = [seq]
            else:
                places.append(seq)

    def _evict(self, count: int) -> None:
        oldest_seq = self.oldest_seq
        for seq in range(oldest_seq, oldest_seq + count):
            _, event_id, topics, _, _ = self._notifications.pop(seq)
            for frames in self._frames.values():
                if frames:
                    frames.pop(seq, None)
            del self._positions[event_id]
            if self._repeats and (repeats := self._repeats.get(event_id)):
                self._positions[event_id] = repeats.pop(0)
                if not repeats:
                    del self._repeats[event_id]
            for topic in topics if len(topics) == 1 else set(topics):
                places = self._by_topic[topic]
                del places[0]
                if not places:
                    del self._by_topic[topic]

    def _match_new(self) -> None:
        """Match what came since the last call, each notification once."""
        oldest_seq = self.oldest_seq
        first_seq = max(self._matched_through + 1, oldest_seq)
        for seq in range(first_seq, self._newest_seq + 1) if self._lanes else ():
            topics = self._notifications[seq].topics
            interested = dict(self._others)
            for topic in topics:
                interested.update(self._naming.get(topic, {}))
            for audience in interested:
                if self._sees(audience, seq):
                    lane = self._lanes[audience]
                    lane.append(seq)
                    self._stirred[audience] = None
                    stale = bisect_right(lane, oldest_seq - 1)
                    if stale > len(lane) // 2:
                        del lane[:stale]
        self._matched_through = self._newest_seq

    def _sees(self, audience: Audience, seq: int) -> bool:
        topics = self._notifications[seq].topics
        wanted = any(matches(selector, topics) for selector in audience.selectors)
        return wanted and self._frame(audience.view, seq) is not None

    def _join(self, audience: Audience, after_seq: int, last_seq: int, bytes_max: int) -> Batch:
        self.watch(audience)
        self._match_new()
        seqs = self._lanes[audience]
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

    def _frame(self, view: View, seq: int) -> bytes | None:
        frames = self._frames[view]
        if seq not in frames:
            notification = self._notifications[seq]
            text = (
                notification.data if view is View.MERCURE else sse.category_text(notification.data)
            )
            frames[seq] = None if text is None else sse.event_frame(notification.id, text)
        return frames[seq]
