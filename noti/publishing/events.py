"""Says what can be an event, and makes events of what publishers send."""

import random
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeGuard

from noti.errors import MessageInvalid, TooLarge
from noti.history.notification import PREFIX, Event, lines_of, sent_bytes
from noti.history.subscriber import OWN_TYPE
from noti.history.topics import TOPIC_TOO_LONG, control_in, problem_of
from noti.publishing.ports import Draft

EVENT_BYTES_MAX: Final = 1024 * 1024
"""Longest event data, as it is sent to readers: NATS' own default limit for a message. Every node
frames it for its readers."""

ID_CHARACTERS_MAX: Final = 256
"""Longest publisher's id that becomes an event id; browsers send it back in a header, in which it
takes up to 3 KiB when it is percent-encoded."""

TYPE_CHARACTERS_MAX: Final = 128
"""Longest type: it stands in pages' code as the name of an event."""

KEY_CHARACTERS_MAX: Final = 256
"""Longest idempotency key: a hash or a UUID, and what an application puts before it."""

TOPICS_MAX: Final = 1000
"""Topics of one event, as in Mercure's reference hub."""

RETRY_MS_MAX: Final = 2**31 - 1
"""Longest time before a reader comes back: what browsers' timers take."""

_SURELY_FITS: Final = EVENT_BYTES_MAX // (len(PREFIX) + 1)
"""So many characters of ASCII do not take more, even if all of them are line ends."""

_RESERVED_IDS: Final = frozenset({"beginning", "earliest"})
"""Have a meaning of their own in `Last-Event-ID` (see `noti.streams.sse`)."""

_CURSOR: Final = re.compile(r"noti:[1-9][0-9]*-[0-9a-f]+")
"""Names a place in history, whatever stands there (see `noti.streams.retained`)."""

_ID: Final = "an event's id"
_TYPE: Final = "an event's type"
_KEY: Final = "an idempotency key"

_KNOWN_TYPES: Final = 1024
"""Types whose check is remembered: an application has few."""


def event_of(draft: Draft, *, wall_ms: int, rng: random.Random) -> Event:
    """Return the event that a publisher wants shown; raises `MessageInvalid`.

    It is `TooLarge` where there is too much of something.

    Unlike a JetStream message, which somebody else has accepted already, a draft with an id that
    cannot be one is rejected: its publisher is there to be answered.
    """
    topics, data, draft_id, event_type, retry_ms, private, key, trace = draft
    if not topics:
        raise MessageInvalid("an event without a topic; name at least one")
    if len(topics) > TOPICS_MAX:
        raise TooLarge(f"an event with {len(topics)} topics; {TOPICS_MAX} are allowed")
    check_topics(topics)
    check_data(data)
    if draft_id is not None or event_type or key:
        _check_names(draft_id, event_type, key)
    if not 0 <= retry_ms <= RETRY_MS_MAX:
        raise MessageInvalid(f"{retry_ms} ms cannot be a time to retry: 0 to {RETRY_MS_MAX}")
    event_id = make_id(wall_ms, rng) if draft_id is None else draft_id
    # Made as a tuple is: the call that names fields takes three times as long.
    fields = (0, event_id, topics, data, wall_ms, event_type, retry_ms, private, key, trace)
    return tuple.__new__(Event, fields)


def _check_names(event_id: str | None, event_type: str, key: str) -> None:
    """Raise `MessageInvalid` unless they can be what they are given for; empty ones are none."""
    for what, text, characters_max in (
        (_ID, event_id or "", ID_CHARACTERS_MAX),
        (_TYPE, event_type, TYPE_CHARACTERS_MAX),
        (_KEY, key, KEY_CHARACTERS_MAX),
    ):
        if len(text) > characters_max:
            raise TooLarge(_too_long(what, text, characters_max))
    if event_id is not None and (problem := problem_of_id(event_id)) is not None:
        raise MessageInvalid(problem)
    if event_type and (problem := problem_of_type(event_type)) is not None:
        raise MessageInvalid(problem)
    if key and (problem := _problem_of_text(_KEY, key, KEY_CHARACTERS_MAX)):
        raise MessageInvalid(problem)


def check_topics(topics: Sequence[str]) -> None:
    """Raise `MessageInvalid` unless readers can name all of them."""
    for topic in topics:
        if (problem := problem_of(topic)) is not None:
            is_too_long = problem == TOPIC_TOO_LONG
            raise TooLarge(problem) if is_too_long else MessageInvalid(problem)


def check_data(data: str) -> None:
    """Raise `MessageInvalid` unless it can be sent to readers, and is not too long for that."""
    if len(data) <= _SURELY_FITS and data.isascii():
        return  # as nearly always
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
    """Return whether a publisher's id can be an event id."""
    return text is not None and problem_of_id(text) is None


def problem_of_id(text: str) -> str | None:
    """Return why a text can be no event's id, in one line, or None."""
    if (problem := _problem_of_text(_ID, text, ID_CHARACTERS_MAX)) is not None:
        return problem
    if text[0] == "#":
        return f"an event's id may not begin with #: {text[:80]!r}"
    if text in _RESERVED_IDS:
        return f"{text!r} cannot be an event's id: it stands for a place in history"
    if text.startswith("noti:") and _CURSOR.fullmatch(text):
        return f"{text[:80]!r} cannot be an event's id: it has the form of this hub's cursors"
    return None


def check_type(event_type: str) -> None:
    """Raise `MessageInvalid` unless a text can be an event's type."""
    if len(event_type) > TYPE_CHARACTERS_MAX:
        raise TooLarge(_too_long(_TYPE, event_type, TYPE_CHARACTERS_MAX))
    if (problem := problem_of_type(event_type)) is not None:
        raise MessageInvalid(problem)


@lru_cache(maxsize=_KNOWN_TYPES)
def problem_of_type(text: str) -> str | None:
    """Return why a text can be no event's type, in one line, or None."""
    if text == OWN_TYPE:
        return f"an event's type may not be {OWN_TYPE!r}: it is the hub's own"
    return _problem_of_text(_TYPE, text, TYPE_CHARACTERS_MAX)


def _problem_of_text(what: str, text: str, characters_max: int) -> str | None:
    """Return why a text cannot stand on one line of a stream, or of a header, as it is."""
    if not text:
        return f"{what} is empty"
    if len(text) > characters_max:
        return _too_long(what, text, characters_max)
    if text != text.strip():
        return f"{what} begins or ends with a space, which headers lose: {text[:80]!r}"
    if text.isprintable():
        return None
    if (control := control_in(text)) is not None:
        return f"{what} has a control character, {control!r}: {text[:80]!r}"
    for character in text:
        if (category := unicodedata.category(character)) == "Cs":
            return f"{what} is no Unicode text: it has half a surrogate pair, {character!r}"
        if category in ("Zl", "Zp"):
            return f"{what} has a line end, {character!r}: {text[:80]!r}"
    return None


def _too_long(what: str, text: str, characters_max: int) -> str:
    return f"{what} of {len(text)} characters; {characters_max} are allowed"


def make_id(wall_ms: int, rng: random.Random) -> str:
    """Return a new event id: `urn:uuid:` and a UUIDv7 (RFC 9562, 5.7), which sorts by time."""
    bits = rng.getrandbits(74)
    group = 0b10 << 14 | bits >> 48 & 0x3FFF  # begins with the variant
    # Printed so, it takes three quarters of the time; it is done for every event.
    parts = (_id_start(wall_ms), bits >> 62, group, bits & 0xFFFF_FFFF_FFFF)
    return "%s%03x-%04x-%012x" % parts  # noqa: UP031 - see above


@lru_cache(maxsize=1)  # All events of a batch are of the same moment.
def _id_start(wall_ms: int) -> str:
    """Return an id as far as it holds the time, with its version."""
    digits = f"{wall_ms & (2**48 - 1):012x}"
    return f"urn:uuid:{digits[:8]}-{digits[8:]}-7"
