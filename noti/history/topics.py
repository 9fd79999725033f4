"""Says what a topic selector covers, and what is a topic.

Enters: topics. Leaves: why a text can be no topic.
Never: I/O, state, case folding or any other normalisation: characters are compared as they are.
"""

import unicodedata
from functools import lru_cache
from typing import Final

from noti.history.reserved_topics import EVERYTHING as EVERYTHING
from noti.history.reserved_topics import RESERVED as RESERVED
from noti.history.reserved_topics import reserved_in_1_0

TOPIC_BYTES_MAX: Final = 1024
"""Longest topic: four times NATS' longest subject, and longer than any URL that people write."""

TOPIC_TOO_LONG: Final = f"a topic is longer than {TOPIC_BYTES_MAX} bytes"
"""What is told of one; others have other problems."""

_KNOWN_TOPICS: Final = 1024
"""Topics whose check is remembered: most publishers use few, again and again."""


@lru_cache(maxsize=_KNOWN_TOPICS)
def problem_of(topic: str) -> str | None:
    """Return why nobody could read events of this topic, in one line, or None."""
    if not topic:
        return "a topic is empty"
    try:
        size_bytes = len(topic.encode())
    except UnicodeEncodeError as error:
        return f"a topic is no Unicode text: it has half a surrogate pair at {error.start}"
    if size_bytes > TOPIC_BYTES_MAX:
        return TOPIC_TOO_LONG
    if topic == EVERYTHING:
        return f"{EVERYTHING!r} is no topic: readers follow all topics by that name"
    if (control := control_in(topic)) is not None:
        return f"topic {topic[:80]!r} has a control character, {control!r}: nobody could read it"
    if reserved_in_1_0(topic):
        return f"topic {topic[:80]!r} is reserved: {RESERVED} is the hub's own"
    return None


def control_in(text: str) -> str | None:
    """Return the first character that no topic, selector, id or type may have, or None.

    These are the controls (C0, DEL, C1), which could forge a line of a stream, and those that
    change how others look (category Cf, as in Mercure 1.0).
    """
    if text.isprintable():
        return None
    return next((one for one in text if unicodedata.category(one) in ("Cc", "Cf")), None)
