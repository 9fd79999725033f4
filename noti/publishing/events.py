"""Says what can be an event, and makes events of what publishers send."""

import random
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeGuard

from noti.errors import MessageInvalid, TooLarge
from noti.history.notification import PREFIX, Event, lines_of, sent_bytes
from noti.history.topics import problem_of
from noti.publishing.ports import Draft

EVENT_BYTES_MAX: Final = 1024 * 1024
"""Longest event data, as it is sent to readers: NATS' own default limit for a message. Every node
keeps 1000 of them, and frames each for its readers."""

ID_CHARACTERS_MAX: Final = 128
"""Longest publisher's id that becomes an event id; browsers send it back in a header."""

TOPICS_MAX: Final = 16
"""Topics of one event; each is compared with each selector of each audience."""

_ID_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + string.punctuation)

_RESERVED_IDS: Final = frozenset({"beginning", "earliest"})
"""Have a meaning of their own in `Last-Event-ID` (see `noti.streams.sse`)."""


def event_of(draft: Draft, *, wall_ms: int, rng: random.Random) -> Event:
    """Return the event that a publisher wants shown; raises `MessageInvalid`.

    Unlike a JetStream message, which somebody else has accepted already, a draft with an id that
    cannot be one is rejected: its publisher is there to be answered.
    """
    if not draft.topics:
        raise MessageInvalid("an event without a topic; name at least one")
    if len(draft.topics) > TOPICS_MAX:
        raise TooLarge(f"an event with {len(draft.topics)} topics; {TOPICS_MAX} are allowed")
    check_topics(draft.topics)
    check_data(draft.data)
    if draft.id is not None and not is_event_id(draft.id):
        raise MessageInvalid(
            f"{draft.id[:ID_CHARACTERS_MAX]!r} cannot be an event's id: "
            f"1 to {ID_CHARACTERS_MAX} printable ASCII characters without spaces"
        )
    event_id = make_id(wall_ms, rng) if draft.id is None else draft.id
    return Event(0, event_id, draft.topics, draft.data, wall_ms, *draft[3:])


def check_topics(topics: Sequence[str]) -> None:
    """Raise `MessageInvalid` unless readers can name all of them."""
    for topic in topics:
        if (problem := problem_of(topic)) is not None:
            raise MessageInvalid(problem)


def check_data(data: str) -> None:
    """Raise `MessageInvalid` unless it can be sent to readers, and is not too long for that."""
    try:
        size_bytes = sent_bytes(data)
    except UnicodeEncodeError as error:
        raise MessageInvalid(
            f"an event's data is no Unicode text: it has half a surrogate pair at {error.start}"
        ) from None
    if size_bytes > EVENT_BYTES_MAX:
        lines = len(lines_of(data))
        counted = f", with {PREFIX!r} before each of its {lines} lines" if lines > 1 else ""
        raise TooLarge(f"an event of {size_bytes} bytes{counted}; {EVENT_BYTES_MAX} are allowed")


def is_event_id(text: str | None) -> TypeGuard[str]:
    """Return whether a publisher's id can be an event id: short, printable ASCII without spaces."""
    return (
        text is not None
        and 0 < len(text) <= ID_CHARACTERS_MAX
        and _ID_CHARACTERS.issuperset(text)
        and text not in _RESERVED_IDS
    )


def make_id(wall_ms: int, rng: random.Random) -> str:
    """Return a new event id: `urn:uuid:` and a UUIDv7 (RFC 9562, 5.7), which sorts by time."""
    bits = rng.getrandbits(74)
    group = 0b10 << 14 | bits >> 48 & 0x3FFF  # begins with the variant
    return f"{_id_start(wall_ms)}{bits >> 62:03x}-{group:04x}-{bits & 0xFFFF_FFFF_FFFF:012x}"


@lru_cache(maxsize=1)  # All events of a batch are of the same moment.
def _id_start(wall_ms: int) -> str:
    """Return an id as far as it holds the time, with its version."""
    digits = f"{wall_ms & (2**48 - 1):012x}"
    return f"urn:uuid:{digits[:8]}-{digits[8:]}-7"
