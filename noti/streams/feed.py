"""Turns notifications into bytes for any reader at any cursor, each piece of work done once.

Enters: notifications in order, and (audience, cursor) pairs. Leaves: joined event-stream bytes.
Never: I/O, clocks, knowledge of clients; a reader is a number, the `seq` of the last notification
it has.

What is held, and for whom, is said in `retained.py`: a reader anywhere in it is served, but only
history can be resumed from.

What is shared: a notification's frame is built once per view; which audiences name one of its
topics, or see all, is looked up once; everyone of one audience at one cursor gets the same bytes
object.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from noti.history.notification import Notification
from noti.history.selectors import Selector, SelectorKind
from noti.streams import sse
from noti.streams.retained import EDGE, Retained

JOINED_BYTES_MAX = 16 * 1024 * 1024
"""Joined byte strings kept for sharing: reads of 64 KiB at 128 cursors, as each is kept as a chunk
too."""
EVICTED_MAX = 1000
"""Notifications that were evicted and may still stand in lists of what audiences see."""


class View(Enum):
    """How a notification is shown."""

    MERCURE = "mercure"
    """Its data as it is."""
    CATEGORY = "category"
    """One line of text; notifications that are no category message are left out."""


class Audience:
    """Readers who see the same: equal view, equal selectors, equal rights.

    An event is seen if any selector matches one of its topics; a private one only if one of
    `rights` matches one of its topics, too. The category view shows no private event.
    """

    __slots__ = ("_hash", "rights", "selectors", "view")

    def __init__(
        self,
        view: View,
        selectors: frozenset[Selector],
        rights: frozenset[Selector] = frozenset(),
    ) -> None:
        """`rights` are what a token allows its bearer to see of private events."""
        self.view = view
        self.selectors = selectors
        self.rights = rights
        self._hash = hash((view, selectors, rights))

    def __hash__(self) -> int:
        return self._hash  # computed once: every event looks audiences up

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Audience)
            and self._hash == other._hash
            and self.view is other.view
            and self.selectors == other.selectors
            and self.rights == other.rights
        )

    def __repr__(self) -> str:
        return f"Audience({self.view}, {set(self.selectors)}, {set(self.rights)})"

    @property
    def names_topics_only(self) -> bool:
        """Whether all selectors are topics."""
        return all(selector.kind is SelectorKind.EXACT for selector in self.selectors)

    def matches(self, topics: Sequence[str]) -> bool:
        """Whether a selector matches one of these topics."""
        return any(selector.matches(topic) for selector in self.selectors for topic in topics)

    def may_see(self, topics: Sequence[str]) -> bool:
        """Whether a private event of these topics may be shown."""
        return self.view is View.MERCURE and any(
            right.matches(topic) for right in self.rights for topic in topics
        )


@dataclass(frozen=True)
class Batch:
    """What a reader gets next."""

    data: bytes
    """Whole frames, joined; empty when nothing between the cursors is for this audience."""
    seq: int
    """The reader's cursor once it has `data`."""
    events: int
    """How many frames `data` holds."""
    created_ms: int
    """When the first of them was made, wall time; 0 without any."""

    @cached_property
    def chunk(self) -> bytes:
        """`data` as one HTTP/1.1 chunk, built once for all who share this batch."""
        return sse.chunk(self.data)


@dataclass(frozen=True, slots=True)
class FellBehind:
    """The cursor points outside of what is held.

    Something between it and `oldest_seq`, where history begins, is gone.
    """

    oldest_seq: int


class Feed:
    """History and backlog, readable from any cursor."""

    def __init__(self) -> None:
        self.retained = Retained()
        self._frames: dict[View, dict[int, bytes | None]] = {view: {} for view in View}
        self._by_audience: dict[Audience, list[int]] = {}
        """What each watched audience sees: retained notifications, and some that are gone."""
        self._by_topic: dict[str, dict[Audience, None]] = {}
        """Watched audiences by the topics that they name, if they do not see all."""
        self._of_all_topics: dict[Audience, None] = {}
        """The other watched audiences."""
        self._with_news: dict[Audience, None] = {}
        self._matched_through = 0
        self._swept_through = 0
        """Up to here, nothing that is gone stands in `_by_audience`."""
        self._joined: dict[tuple[Audience, int, int, int], Batch] = {}
        self._joined_bytes = 0

    @property
    def newest_seq(self) -> int:
        """The last notification's number; 0 before the first one."""
        return self.retained.newest_seq

    @property
    def oldest_seq(self) -> int:
        """History's first number; `newest_seq + 1` when there is no history."""
        return self.retained.oldest_seq

    def extend(self, notifications: Iterable[Notification]) -> None:
        """Add notifications that follow the newest one."""
        by_topic, of_all_topics = self._by_topic, len(self._of_all_topics)
        for notification in notifications:
            audiences = of_all_topics
            for topic in notification.topics:
                if topic in by_topic:
                    audiences += len(by_topic[topic])
            self.retained.append(notification, audiences)
        self._forget_joined()

    def trim(self, oldest_seq: int) -> None:
        """Let history begin at `oldest_seq`; what was before is kept until `release`."""
        self.retained.trim(oldest_seq)

    def release(self, through_seq: int) -> None:
        """Free what is not history any more: all readers are at `through_seq` or further."""
        gone = self.retained.evict(through_seq)
        for frames in self._frames.values():
            if frames:
                for seq in gone:
                    frames.pop(seq, None)
        first_seq = self.retained.first_seq
        if first_seq - self._swept_through > EVICTED_MAX:
            self._swept_through = first_seq
            for seqs in self._by_audience.values():
                del seqs[: bisect_right(seqs, first_seq - 1)]

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Forget everything and take `notifications` for the whole history (after a snapshot)."""
        self.retained.clear()
        for seqs in self._by_audience.values():
            seqs.clear()
        for frames in self._frames.values():
            frames.clear()
        self._matched_through = self._swept_through = 0
        self.extend(notifications)

    def position_of(self, event_id: str) -> int | None:
        """Return where `event_id` stands in history; None when it does not.

        `earliest` is `EDGE`: wherever history begins when it is first read from there.
        """
        return self.retained.position_of(event_id)

    def read(
        self, audience: Audience, after_seq: int, bytes_max: int, *, through_seq: int | None = None
    ) -> Batch | FellBehind:
        """Return what `audience` sees after `after_seq`, up to `through_seq` (default: the newest).

        Stops early rather than pass `bytes_max`, but always returns at least one frame if there is
        one, so that reading on from `Batch.seq` comes to the end.
        """
        last_seq = self.retained.newest_seq
        if through_seq is not None:
            last_seq = min(last_seq, through_seq)
        if after_seq == EDGE:
            after_seq = self.oldest_seq - 1
        if not self.holds(after_seq):
            return FellBehind(self.oldest_seq)
        key = (audience, after_seq, last_seq, bytes_max)
        batch = self._joined.get(key)
        if batch is None:
            if self._joined_bytes >= JOINED_BYTES_MAX:
                self._forget_joined()
            batch = self._joined[key] = self._join(audience, after_seq, last_seq, bytes_max)
            self._joined_bytes += 2 * len(batch.data) + JOINED_BYTES_MAX // 4096
        return batch

    def holds(self, after_seq: int) -> bool:
        """Whether everything after this cursor is here."""
        return self.retained.first_seq - 1 <= after_seq <= self.retained.newest_seq

    def before_last(self, audience: Audience, count: int) -> int:
        """Return the cursor after which history holds the last `count` events for `audience`.

        Or all of them, if they are fewer; the newest cursor if there are none. Looking does not
        watch.
        """
        self._match_new()
        seqs = self._by_audience.get(audience)
        if seqs is None:
            seqs = self._seen_by(audience)
        first = max(bisect_left(seqs, self.oldest_seq), len(seqs) - count)
        return seqs[first] - 1 if first < len(seqs) else self.newest_seq

    def heartbeat(self, cursor: int, *, with_cursor: bool) -> bytes:
        """Return what a silent reader gets.

        A comment, and a fresh cursor if it wants one and has all that is here.
        """
        if with_cursor and cursor == self.newest_seq:
            return sse.HEARTBEAT + sse.cursor(self.retained.newest_cursor)
        return sse.HEARTBEAT

    def watch(self, audience: Audience) -> None:
        """Match what comes with an audience, until `forget`. Reading does so too."""
        if audience in self._by_audience:
            return
        self._match_new()
        if audience.names_topics_only:
            for selector in audience.selectors:
                self._by_topic.setdefault(selector.text, {})[audience] = None
        else:
            self._of_all_topics[audience] = None
        self._by_audience[audience] = self._seen_by(audience)

    def forget(self, audience: Audience) -> None:
        """Drop what is kept for an audience without readers; reading again brings it back."""
        if self._by_audience.pop(audience, None) is None:
            return
        self._with_news.pop(audience, None)
        self._of_all_topics.pop(audience, None)
        if audience.names_topics_only:
            for selector in audience.selectors:
                named = self._by_topic[selector.text]
                del named[audience]
                if not named:
                    del self._by_topic[selector.text]

    def with_news(self) -> list[Audience]:
        """Return the watched audiences for whom something came since the last call."""
        self._match_new()
        found = list(self._with_news)
        self._with_news.clear()
        return found

    def _forget_joined(self) -> None:
        self._joined.clear()
        self._joined_bytes = 0

    def _match_new(self) -> None:
        """Match what came since the last call, each notification once."""
        newest_seq = self.retained.newest_seq
        first_seq = max(self._matched_through + 1, self.retained.first_seq)
        for seq in range(first_seq, newest_seq + 1) if self._by_audience else ():
            topics = self.retained.notifications[seq].topics
            interested = dict(self._of_all_topics)
            for topic in topics:
                interested.update(self._by_topic.get(topic, {}))
            for audience in interested:
                if self._sees(audience, seq):
                    self._by_audience[audience].append(seq)
                    self._with_news[audience] = None
        self._matched_through = newest_seq

    def _seen_by(self, audience: Audience) -> list[int]:
        """Return what is held for an audience, in order."""
        seqs: Iterable[int] = (
            self.retained.on_topics([selector.text for selector in audience.selectors])
            if audience.names_topics_only
            else range(self.retained.first_seq, self.retained.newest_seq + 1)
        )
        return [seq for seq in seqs if self._sees(audience, seq)]

    def _sees(self, audience: Audience, seq: int) -> bool:
        notification = self.retained.notifications[seq]
        if not audience.names_topics_only and not audience.matches(notification.topics):
            return False
        if notification.private and not audience.may_see(notification.topics):
            return False
        return audience.view is View.MERCURE or self._frame(audience.view, seq) is not None

    def _join(self, audience: Audience, after_seq: int, last_seq: int, bytes_max: int) -> Batch:
        if audience not in self._by_audience:
            self.watch(audience)
        if self._matched_through < last_seq:
            self._match_new()
        seqs = self._by_audience[audience]
        pieces: list[bytes] = []
        created_ms = 0
        size_bytes = 0
        cursor = after_seq
        for position in range(bisect_right(seqs, after_seq), bisect_right(seqs, last_seq)):
            frame = self._frame(audience.view, seqs[position])
            assert frame is not None, "only what can be shown is listed"
            if not pieces:
                created_ms = self.retained.notifications[seqs[position]].created_ms
            elif size_bytes + len(frame) > bytes_max:
                return Batch(b"".join(pieces), cursor, len(pieces), created_ms)
            pieces.append(frame)
            size_bytes += len(frame)
            cursor = seqs[position]
        return Batch(b"".join(pieces), max(last_seq, after_seq), len(pieces), created_ms)

    def _frame(self, view: View, seq: int) -> bytes | None:
        frames = self._frames[view]
        if seq not in frames:
            notification = self.retained.notifications[seq]
            text = (
                notification.data if view is View.MERCURE else sse.category_text(notification.data)
            )
            frames[seq] = (
                None
                if text is None
                else sse.event_frame(
                    notification.id, text, notification.type, notification.retry_ms
                )
            )
        return frames[seq]
