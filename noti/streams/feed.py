"""Turns notifications into bytes for any reader at any cursor, each piece of work done once.

Enters: notifications in order, and (audience, cursor) pairs. Leaves: joined event-stream bytes.
Never: I/O, clocks, knowledge of clients; a reader is a number, the `seq` of the last notification
it has.

What is held, and for whom, is said in `retained.py`: a reader anywhere in it is served, but only
history can be resumed from.

What is shared: a notification's frame is built once per view; which audiences it is for is looked
up once; everyone of one audience at one cursor gets the same bytes object. Nothing is kept for an
audience but its place in the index: what it sees is found by its topics, of which it has few.
Templates and patterns are matched as events come; whoever reads on from long ago has them matched
again, some events a read.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TypeAlias

from noti.history.notification import Notification
from noti.history.selectors import Selector
from noti.streams.audience import (
    PATTERN_KINDS,
    Audience,
    AudienceIndex,
    Audiences,
    View,
    in_both,
)
from noti.streams.delivered import NOTHING, Delivered, DeliveredBatches
from noti.streams.frames import Frames
from noti.streams.framing import EVENT_STREAM, Framing
from noti.streams.retained import EDGE, NOWHERE, Retained, partial, place_of

__all__ = ["Audience", "Batch", "Feed", "FellBehind", "LostThrough", "View"]

JOINED_BYTES_MAX = 16 * 1024 * 1024
"""Joined byte strings kept for sharing: reads of 64 KiB at 128 cursors, as each is kept as a chunk
too."""
EVENTS_A_READ = 1000
"""Events that one read looks at, at most; the reader reads on from there. 2 ms, if a pattern must
be tried on each of them."""
FRAME_BYTES = 128
"""As if a frame took so much: a read that may return little looks at fewer events. Those with less
around their data are rare, and leave a read half full at worst."""
MATCHES_KEPT = 1000
"""Events that match a pattern of which it is known: those of several passes. Whoever is further
behind has them matched again."""
SEARCHED_MAX = 10_000
"""Events of history that are looked through for the last ones that an audience sees."""
SEARCH_COST_MAX = 200_000
"""Beginnings of patterns that are compared with a topic in such a search, some 20 ms."""
TRY_COST = 100
"""How many of those a pattern costs that is tried."""

LostThrough: TypeAlias = Callable[[Iterable[str] | None], int]
"""Returns the highest number with one of these topics that history has lost; None means any topic
(`noti.history.store`)."""


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
    framing: Framing = EVENT_STREAM
    delivered: Delivered = field(default=NOTHING, compare=False)
    """Counted by whoever hands it to streams."""

    @cached_property
    def wire(self) -> bytes:
        """`data` as it goes to a socket, built once for all who share this batch."""
        return self.framing.wire(self.data)


@dataclass(frozen=True, slots=True)
class FellBehind:
    """The cursor points outside of what is held.

    Something between it and `oldest_seq`, where history's window begins, is gone.
    """

    oldest_seq: int


@dataclass(slots=True)
class Matches:
    """What a pattern is known to match."""

    known_after: int
    """Behind this number, all is known."""
    seqs: list[int]


class Feed:
    """History and backlog, readable from any cursor."""

    def __init__(self) -> None:
        self.retained = Retained()
        self.lost_through: LostThrough = lambda topics: self.retained.lost_through
        """Set by whoever has the history: without it, all topics are taken to have lost alike."""
        self._frames: dict[tuple[View, Framing], Frames] = {}
        self._watched: Audiences = {}
        self._readers = AudienceIndex()
        """Watched audiences by what they ask for."""
        self._entitled = AudienceIndex()
        """The same by what they may see of private events."""
        self._matches: dict[Selector, Matches] = {}
        """By each template and pattern of a watched audience."""
        self._with_news: Audiences = {}
        self._matched_through = 0
        self._joined: dict[tuple[Audience, int, int, int], Batch] = {}
        self._shared: dict[tuple[View, Framing, tuple[int, ...], int, int, bool], Batch] = {}
        """The same by what is seen: audiences that differ often see the same."""
        self._joined_bytes = 0
        self.delivered = DeliveredBatches()

    @property
    def newest_seq(self) -> int:
        """The last notification's number; 0 before the first one."""
        return self.retained.newest_seq

    @property
    def oldest_seq(self) -> int:
        """Where history's window begins; `newest_seq + 1` when it is empty."""
        return self.retained.oldest_seq

    def extend(self, notifications: Iterable[Notification]) -> None:
        """Add notifications that follow the newest one."""
        self.retained.extend(notifications)
        self._forget_joined()

    def trim(self, oldest_seq: int, gone: Sequence[int] | None = None) -> None:
        """Let history's window begin at `oldest_seq`; what is `gone` is kept until `release`.

        None means all that was before.
        """
        self.retained.trim(oldest_seq, gone)

    def release(self, through_seq: int, count: int | None = None) -> bool:
        """Free what is not history any more: all readers are at `through_seq` or further.

        Frees `count` events at most; returns whether it was so many, so that there may be more.
        """
        most = len(self.retained.notifications) if count is None else count
        return len(self.retained.release(through_seq, most)) == count

    def reset(self, notifications: Sequence[Notification], oldest_seq: int | None = None) -> None:
        """Forget everything and take `notifications` for the whole history (after a snapshot).

        Its window begins at `oldest_seq`; None means that all of it is the window.
        """
        if oldest_seq is None:
            oldest_seq = notifications[0].seq if notifications else 1
        self.retained.reset(notifications, oldest_seq)
        for frames in self._frames.values():
            frames.clear()
        for matches in self._matches.values():
            matches.seqs.clear()
            matches.known_after = self.newest_seq
        self._matched_through = self.newest_seq
        self._forget_joined()

    def position_of(self, event_id: str) -> int | None:
        """Return where `event_id` stands in history; None when it does not.

        `earliest` is `EDGE`: wherever history begins when it is first read from there. Whether
        history has holes behind that place, says `has_gap`.
        """
        return self.retained.position_of(event_id)

    def has_gap(self, audience: Audience, cursor: int) -> bool:
        """Return whether history has lost something that `audience` would see behind a cursor.

        Or may have lost. Readers of topics miss only what is lost of these topics; nobody knows
        which of the topics that are lost a template or a pattern would match.
        """
        if cursor < 0:
            return False
        whole = audience.sees_all_topics or audience.patterns
        return cursor < self.lost_through(None if whole else audience.names)

    def read(
        self, audience: Audience, after_seq: int, bytes_max: int, *, through_seq: int | None = None
    ) -> Batch | FellBehind:
        """Return what `audience` sees after a cursor, up to `through_seq` (default: the newest).

        Stops early rather than pass `bytes_max` or look at too many for that; reading on
        from `Batch.seq` comes to the end. So a batch without events says that all is read only if
        its `seq` is `through_seq`.
        """
        last_seq = self.retained.newest_seq
        if through_seq is not None:
            last_seq = min(last_seq, through_seq)
        if after_seq == EDGE:
            after_seq = partial(self.retained.first_seq - 1)
        if not self.holds(after_seq) or (
            0 <= after_seq < self.retained.freed_through and self.has_gap(audience, after_seq)
        ):
            return FellBehind(self.oldest_seq)
        key = (audience, after_seq, last_seq, bytes_max)
        batch = self._joined.get(key)
        if batch is None:
            if self._joined_bytes >= JOINED_BYTES_MAX:
                self._forget_joined()
            batch = self._joined[key] = self._join(audience, after_seq, last_seq, bytes_max)
            self._joined_bytes += 2 * len(batch.data) + JOINED_BYTES_MAX // 4096
        return batch

    def holds(self, cursor: int) -> bool:
        """Whether a cursor is a place in the order, as far as it is known here."""
        return cursor != NOWHERE and place_of(cursor) <= self.retained.newest_seq

    def before_last(self, audience: Audience, count: int) -> int:
        """Return the cursor after which history holds the last `count` events for `audience`.

        Or those that are found, if they are fewer or far back; the newest cursor if there are none.
        Looking does not watch. Behind a cursor of sparse history there may be holes.
        """
        if audience.sees_all_topics or audience.patterns:
            seqs: Iterable[int] = islice(self.retained.backwards(), SEARCHED_MAX)
            if not audience.sees_all_topics:
                seqs = self._asked_for(audience, seqs)
        else:
            lists = (self.retained.on_topic(name)[-SEARCHED_MAX:] for name in audience.names)
            seqs = sorted(set().union(*lists), reverse=True)
        seen = (seq for seq in seqs if self.retained.in_history(seq) and self._sees(audience, seq))
        last = list(islice(seen, count))
        if not last:
            return self.newest_seq
        first = last[-1]
        return partial(first - 1) if first < self.oldest_seq else first - 1

    def _asked_for(self, audience: Audience, seqs: Iterable[int]) -> Iterable[int]:
        """Yield those that an audience with patterns asks for, until that has cost too much.

        Whoever may connect chooses the patterns, and nobody else is served meanwhile.
        """
        names = frozenset(audience.names)
        beginnings = [(pattern.prefix, pattern) for pattern in audience.patterns]
        left = SEARCH_COST_MAX
        for seq in seqs:
            for topic in self.retained.notifications[seq].topics:
                left -= len(beginnings)
                fits = topic in names
                for prefix, pattern in beginnings:
                    if fits or left < 0:
                        break
                    if topic.startswith(prefix):
                        left -= TRY_COST
                        fits = pattern.matches(topic)
                if fits:
                    yield seq
                    break
                if left < 0:
                    return

    def heartbeat(self, framing: Framing, cursor: int, *, with_cursor: bool) -> bytes:
        """Return what a silent reader gets, and a fresh cursor if it wants one and has all."""
        if with_cursor and cursor == self.newest_seq:
            return framing.heartbeat() + framing.cursor(self.retained.newest_cursor)
        return framing.heartbeat()

    # Audiences

    def watch(self, audience: Audience) -> None:
        """Match what comes with an audience, until `forget`. Reading does so too."""
        if audience in self._watched:
            return
        self._match_new()
        self._watched[audience] = None
        self._readers.add(audience, audience.selectors)
        self._entitled.add(audience, audience.rights)
        if not audience.sees_all_topics:
            for pattern in audience.patterns:
                if pattern not in self._matches:
                    self._matches[pattern] = Matches(self.newest_seq, [])

    def is_crowded(self, selectors: Iterable[Selector]) -> bool:
        """Whether one of these is a pattern for which there is no room beside those in use."""
        patterns = self._readers.patterns
        return any(one.kind in PATTERN_KINDS and patterns.is_crowded(one) for one in selectors)

    def forget(self, audience: Audience) -> None:
        """Drop what is kept for an audience without readers; reading again brings it back."""
        if audience not in self._watched:
            return
        del self._watched[audience]
        self._with_news.pop(audience, None)
        self._readers.remove(audience, audience.selectors)
        self._entitled.remove(audience, audience.rights)
        for pattern in audience.patterns:
            if not self._readers.patterns.uses(pattern):
                self._matches.pop(pattern, None)

    def with_news(self) -> list[Audience]:
        """Return the watched audiences for whom something came since the last call."""
        self._match_new()
        found = list(self._with_news)
        self._with_news.clear()
        return found

    def _match_new(self) -> None:
        """Match what came since the last call, each notification once."""
        newest_seq = self.retained.newest_seq
        if self._watched and self._matched_through < newest_seq:
            # Also what has left history meanwhile: readers that are open get it.
            held, matched = self.retained.notifications, None
            for seq in self.retained.between(self._matched_through, newest_seq):
                notification = held[seq]
                # Of events of one topic in a row, the first has told all that follow it.
                if notification.private or self._matches or notification.topics != matched:
                    self._match(notification)
                    matched = None if notification.private else notification.topics
            for matches in self._matches.values() if self._matches else ():
                if (surplus := len(matches.seqs) - MATCHES_KEPT) > MATCHES_KEPT:
                    matches.known_after = matches.seqs[surplus - 1]
                    del matches.seqs[:surplus]
        self._matched_through = newest_seq

    def _match(self, notification: Notification) -> None:
        topics = notification.topics
        interested = self._readers.matching(topics)
        if self._matches:
            for topic in topics:
                for pattern in self._readers.patterns.matching(topic):
                    seqs = self._matches[pattern].seqs
                    if not seqs or seqs[-1] != notification.seq:
                        seqs.append(notification.seq)
        if notification.private:
            entitled = self._entitled.matching(topics)
            for audience in in_both(interested, entitled):
                if audience.view is View.MERCURE:
                    self._with_news[audience] = None
            return
        for audiences in interested:
            self._with_news.update(audiences)

    def audiences_of(self, notification: Notification) -> Iterator[Audience]:
        """Yield the watched audiences that see an event, each once."""
        topics = notification.topics
        interested = self._readers.matching(topics)
        if notification.private:
            found = dict.fromkeys(in_both(interested, self._entitled.matching(topics)))
        else:
            found = dict.fromkeys(one for audiences in interested for one in audiences)
        for audience in found:
            if audience.may_see(notification) and self._shows(audience, notification):
                yield audience

    # Reading

    def _join(self, audience: Audience, after_seq: int, last_seq: int, bytes_max: int) -> Batch:
        most = min(EVENTS_A_READ, 1 + bytes_max // FRAME_BYTES)
        seqs, through_seq = self._candidates(audience, place_of(after_seq), last_seq, most)
        held = self.retained.notifications
        seen = tuple(
            [  # a list, which is made faster than what makes one by one
                seq
                for seq in seqs
                if (one := held.get(seq)) is not None and (not one.private or audience.may_see(one))
            ]
        )
        key = (audience.view, audience.framing, seen, through_seq, bytes_max, after_seq < 0)
        batch = self._shared.get(key)
        if batch is None:
            batch = self._shared[key] = self._frame_all(*key)
        return batch

    def _frame_all(
        self,
        view: View,
        framing: Framing,
        seqs: Sequence[int],
        through_seq: int,
        bytes_max: int,
        is_partial: bool,
    ) -> Batch:
        """Return the frames of these events, as far as they fit; `through_seq` is behind them.

        `is_partial` says that the reader knows of holes.
        """
        frames, held = self._frames_of(view, framing), self.retained.notifications
        pieces: list[bytes] = []
        created_ms = size_bytes = last_seq = 0
        left_out: list[int] = []
        for seq in seqs:
            notification = held[seq]
            frame = frames.of(notification)
            if frame is None:
                left_out.append(seq)
                continue
            if not pieces:
                created_ms = notification.created_ms
            elif size_bytes + len(frame) > bytes_max:
                through_seq = last_seq
                break
            pieces.append(frame)
            size_bytes += len(frame)
            last_seq = seq
        if is_partial and through_seq < self.retained.oldest_seq - 1:
            through_seq = partial(through_seq)
        delivered = self.delivered.begin(seqs, last_seq, left_out)
        return Batch(b"".join(pieces), through_seq, len(pieces), created_ms, framing, delivered)

    def _frames_of(self, view: View, framing: Framing) -> Frames:
        frames = self._frames.get((view, framing))
        if frames is None:
            frames = self._frames[view, framing] = Frames(view, framing)
        return frames

    def _candidates(
        self, audience: Audience, place: int, last_seq: int, most: int
    ) -> tuple[Sequence[int], int]:
        """Return what an audience may see behind a place, in order, and up to where that is all.

        Looks at `most` events.
        """
        if audience.sees_all_topics:
            seqs: Sequence[int] = list(islice(self.retained.between(place, last_seq), most))
        elif audience.patterns and not self._knows_matches(audience, place):
            looked_at = list(islice(self.retained.between(place, last_seq), most))
            through_seq = looked_at[-1] if len(looked_at) == most else max(place, last_seq)
            return [seq for seq in looked_at if self._is_for(audience, seq)], through_seq
        else:
            lists: list[Sequence[int]] = [self.retained.on_topic(name) for name in audience.names]
            lists += [self._matches[pattern].seqs for pattern in audience.patterns]
            parts = [_part(seqs, place, last_seq, most) for seqs in lists]
            seqs = parts[0] if len(parts) == 1 else sorted(set().union(*parts))[:most]
        return seqs, seqs[-1] if len(seqs) == most else max(place, last_seq)

    def _knows_matches(self, audience: Audience, place: int) -> bool:
        """Whether what the audience's patterns match behind a place is known."""
        self.watch(audience)
        self._match_new()
        return all(place >= self._matches[one].known_after for one in audience.patterns)

    def _is_for(self, audience: Audience, seq: int) -> bool:
        """Whether a watched audience asks for an event."""
        for topic in self.retained.notifications[seq].topics:
            if topic in audience.names:
                return True
            if any(one in audience.patterns for one in self._readers.patterns.matching(topic)):
                return True
        return False

    def _sees(self, audience: Audience, seq: int) -> bool:
        notification = self.retained.notifications[seq]
        return (
            audience.matches(notification.topics)
            and audience.may_see(notification)
            and self._shows(audience, notification)
        )

    def _shows(self, audience: Audience, notification: Notification) -> bool:
        """Whether an event can be shown as the audience has it."""
        if audience.view is View.MERCURE:
            return True
        return self._frames_of(audience.view, audience.framing).of(notification) is not None

    def _forget_joined(self) -> None:
        self._joined.clear()
        self._shared.clear()
        self._joined_bytes = 0


def _part(seqs: Sequence[int], place: int, last_seq: int, most: int) -> Sequence[int]:
    """Return those behind a place, up to another one, and at most so many."""
    if not seqs or seqs[-1] <= place:
        return ()
    first = bisect_right(seqs, place)
    last = len(seqs) if seqs[-1] <= last_seq else bisect_right(seqs, last_seq)
    return seqs[first : min(last, first + most)]
