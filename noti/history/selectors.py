"""Says which topics a reader or a token means: exact, by URI template, by URL pattern, all.

Enters: selectors as requests and tokens write them; topics. Leaves: `Selector`s; whether one
matches a topic.
Never: I/O, normalisation of exact topics, time that grows faster than the topic's length.
"""

from dataclasses import dataclass
from enum import Enum

from noti.history.topics import EVERYTHING


class SelectorKind(Enum):
    """How a selector is compared with topics."""

    EXACT = "exact"
    """Character for character."""
    TEMPLATE = "template"
    """A URI Template (RFC 6570) of Mercure 0.x; matches itself too, character for character."""
    URL_PATTERN = "urlpattern"
    """A WHATWG URL Pattern of Mercure 1.0."""
    ALL = "all"
    """`*`: every topic."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which topics are meant."""

    kind: SelectorKind
    text: str
    base: str = ""
    """URL against which a relative pattern, and relative topics, are resolved; only of patterns."""


ALL_TOPICS = Selector(SelectorKind.ALL, EVERYTHING)
