"""Says who sees what: audiences, and which of many audiences an event is for.

An event is looked up, not tried on every audience: topics that audiences name are in an index; each
distinct template or pattern is tried once for a topic, and what it said is remembered for the
topics in use. They are found by what stands before their first variable, so that ten thousand
users with a template or a pattern of their own are one look-up, too.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TypeAlias, TypeVar

from noti.history.notification import Notification
from noti.history.selectors import ALL_TOPICS, Selector, SelectorKind, path_of
from noti.streams.framing import EVENT_STREAM, Framing

TOPICS_REMEMBERED = 4096
"""Topics of which is known which patterns match them: most applications use few at a time."""

PATTERNS_ALIKE_MAX = 500
"""Patterns in use at a node that begin with the same text: all of them are tried on each topic that
begins so, in some 1 ms. Beyond what is kept compiled, it would be a second."""
BASES_MAX = 64
"""Addresses of the hub against which patterns in use are resolved; a public URL makes them one."""

PATTERN_KINDS = (SelectorKind.TEMPLATE, SelectorKind.URL_PATTERN)


class View(Enum):
    """How a notification is shown."""

    MERCURE = "mercure"
    """Its data as it is."""
    CATEGORY = "category"
    """One line of text; notifications that are no category message are left out."""


class Audience:
    """Readers who are sent the same: equal view, equal selectors, equal rights, equal framing.

    An event is seen if any selector matches one of its topics; a private one only if one of
    `rights` matches one of its topics, too. The category view shows no private event.
    """

    __slots__ = (
        "_hash",
        "framing",
        "names",
        "patterns",
        "rights",
        "sees_all_topics",
        "selectors",
        "view",
    )

    def __init__(
        self,
        view: View,
        selectors: frozenset[Selector],
        rights: frozenset[Selector] = frozenset(),
        framing: Framing = EVENT_STREAM,
    ) -> None:
        """`rights` are what a token allows its bearer to see of private events."""
        self.view = view
        self.framing = framing
        self.selectors = selectors
        self.rights = rights
        self.sees_all_topics = ALL_TOPICS in selectors
        """Whether no topic is kept from them."""
        self.names = tuple(one.text for one in selectors if one.kind is SelectorKind.EXACT)
        """The topics that they name."""
        self.patterns = tuple(one for one in selectors if one.kind in PATTERN_KINDS)
        """Their templates and patterns."""
        self._hash = hash((view, selectors, rights, framing))

    def __hash__(self) -> int:
        return self._hash  # computed once: every event looks audiences up

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Audience)
            and self._hash == other._hash
            and self.view is other.view
            and self.framing is other.framing
            and self.selectors == other.selectors
            and self.rights == other.rights
        )

    def __repr__(self) -> str:
        return f"Audience({self.view}, {set(self.selectors)}, {set(self.rights)})"

    def matches(self, topics: Sequence[str]) -> bool:
        """Whether a selector matches one of these topics."""
        return _any_matches(self.selectors, topics)

    def may_see(self, notification: Notification) -> bool:
        """Whether an event is not private, or their rights cover it."""
        if not notification.private:
            return True
        if self.view is not View.MERCURE:
            return False
        return _any_matches(self.rights, notification.topics)


def _any_matches(selectors: Iterable[Selector], topics: Sequence[str]) -> bool:
    return any(selector.matches(topic) for selector in selectors for topic in topics)


_Key = TypeVar("_Key", str, Selector)

Audiences: TypeAlias = dict[Audience, None]
"""In the order in which they came."""


class _Prefixes:
    """Patterns by what they begin with."""

    def __init__(self) -> None:
        self.by_prefix: dict[str, dict[Selector, None]] = {}
        self._lengths: dict[int, int] = {}
        """How many prefixes are so long."""

    def add(self, pattern: Selector, prefix: str) -> None:
        if prefix not in self.by_prefix:
            self.by_prefix[prefix] = {}
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
        self.by_prefix[prefix][pattern] = None

    def remove(self, pattern: Selector, prefix: str) -> None:
        del self.by_prefix[prefix][pattern]
        if not self.by_prefix[prefix]:
            del self.by_prefix[prefix]
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]

    def of(self, text: str) -> Iterable[Selector]:
        """Return those that may match what begins as `text` does."""
        return (
            pattern for length in self._lengths for pattern in self.by_prefix.get(text[:length], ())
        )


class PatternIndex:
    """Templates and patterns, each of which is tried once for a topic."""

    def __init__(self) -> None:
        self._uses: dict[Selector, int] = {}
        self._beginnings: dict[Selector, str] = {}
        self._groups: dict[str | None, _Prefixes] = {}
        """URL patterns by their base, templates under None."""
        self._remembered: dict[str, tuple[Selector, ...]] = {}

    def add(self, pattern: Selector) -> None:
        """Use a pattern once more."""
        uses = self._uses[pattern] = self._uses.get(pattern, 0) + 1
        if uses > 1:
            return
        prefix = self._beginnings[pattern] = _beginning(pattern)
        self._groups.setdefault(_group(pattern), _Prefixes()).add(pattern, prefix)
        self._remembered.clear()

    def remove(self, pattern: Selector) -> None:
        """Use a pattern once less."""
        self._uses[pattern] -= 1
        if self._uses[pattern]:
            return
        del self._uses[pattern]
        group = _group(pattern)
        prefixes = self._groups[group]
        prefixes.remove(pattern, self._beginnings.pop(pattern))
        if not prefixes.by_prefix:
            del self._groups[group]
        self._remembered.clear()

    def uses(self, pattern: Selector) -> int:
        """Return how often a pattern is used."""
        return self._uses.get(pattern, 0)

    def is_crowded(self, pattern: Selector) -> bool:
        """Whether so many begin like a pattern that is not used yet that one more is too many."""
        if pattern in self._uses:
            return False
        group = _group(pattern)
        if (prefixes := self._groups.get(group)) is None:
            return len(self._groups) > BASES_MAX
        return len(prefixes.by_prefix.get(_beginning(pattern), ())) >= PATTERNS_ALIKE_MAX

    def matching(self, topic: str) -> tuple[Selector, ...]:
        """Return the patterns that match a topic."""
        found = self._remembered.get(topic)
        if found is None:
            found = tuple(
                pattern
                for base, prefixes in self._groups.items()
                if (text := topic if base is None else path_of(topic, base)) is not None
                for pattern in prefixes.of(text)
                if pattern.matches(topic)
            )
            if len(self._remembered) >= TOPICS_REMEMBERED:
                self._remembered.clear()
            self._remembered[topic] = found
        return found


def _group(pattern: Selector) -> str | None:
    return pattern.base if pattern.kind is SelectorKind.URL_PATTERN else None


def _beginning(pattern: Selector) -> str:
    return pattern.path_prefix if pattern.kind is SelectorKind.URL_PATTERN else pattern.prefix


class AudienceIndex:
    """Audiences by a set of selectors that each has: what it asked for, or what it may see."""

    def __init__(self) -> None:
        self.patterns = PatternIndex()
        self._of_all: Audiences = {}
        self._by_topic: dict[str, Audiences] = {}
        self._by_pattern: dict[Selector, Audiences] = {}

    def add(self, audience: Audience, selectors: frozenset[Selector]) -> None:
        """Find an audience by these selectors from now on."""
        if ALL_TOPICS in selectors:
            self._of_all[audience] = None
            return
        for selector in selectors:
            if selector.kind is SelectorKind.EXACT:
                self._by_topic.setdefault(selector.text, {})[audience] = None
            else:
                self.patterns.add(selector)
                self._by_pattern.setdefault(selector, {})[audience] = None

    def remove(self, audience: Audience, selectors: frozenset[Selector]) -> None:
        """Find an audience no more, which was added with these selectors."""
        if ALL_TOPICS in selectors:
            del self._of_all[audience]
            return
        for selector in selectors:
            if selector.kind is SelectorKind.EXACT:
                _remove(self._by_topic, selector.text, audience)
            else:
                self.patterns.remove(selector)
                _remove(self._by_pattern, selector, audience)

    def matching(self, topics: Sequence[str]) -> list[Audiences]:
        """Return the audiences one of whose selectors matches; one may be in several parts."""
        found = [self._of_all] if self._of_all else []
        for topic in topics:
            if (audiences := self._by_topic.get(topic)) is not None:
                found.append(audiences)
            if self._by_pattern:
                found += [self._by_pattern[one] for one in self.patterns.matching(topic)]
        return found


def _remove(index: dict[_Key, Audiences], key: _Key, audience: Audience) -> None:
    del index[key][audience]
    if not index[key]:
        del index[key]


def in_both(some: list[Audiences], others: list[Audiences]) -> Iterable[Audience]:
    """Return the audiences that are in both; it takes as long as the smaller side is."""
    if sum(map(len, some)) > sum(map(len, others)):
        some, others = others, some
    return (
        audience
        for audiences in some
        for audience in audiences
        if any(audience in those for those in others)
    )
