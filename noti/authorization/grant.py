"""Says what a token allows.

Enters: selectors, as tokens have them; topics. Leaves: whether one may publish or read them.
Never: I/O, a clock, the token itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from noti.history.selectors import Selector


class Dialect(Enum):
    """Which of Mercure's incompatible protocols is spoken."""

    V0 = "0.x"
    """draft-dunglas-mercure-07 and before."""
    V1 = "1.0"
    """draft-dunglas-mercure-08."""


class Action(Enum):
    """What a request wants to do: each has keys of its own."""

    PUBLISH = "publisher"
    SUBSCRIBE = "subscriber"


@dataclass(frozen=True, slots=True)
class Payload:
    """What a token attaches to subscriptions, for others to see."""

    matchers: frozenset[Selector] | None
    """Of which subscriptions; None for all (0.x)."""
    json: str | None
    """None for a detail of 1.0 that matches and has none."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer of a token may do. Equal grants are equal values."""

    dialect: Dialect | None
    """Of the token; None when there was none."""
    publish: frozenset[Selector] = frozenset()
    subscribe: frozenset[Selector] = frozenset()
    """Of private events: one topic must match. Public ones need no right."""
    payloads: tuple[Payload, ...] = ()
    subject: str | None = None
    """`sub`: whose token it is."""
    token_id: str | None = None
    """`jti`: which token it is."""
    expires_at: float | None = None
    """Unix time at which it ends, seconds; None for never."""

    def may_publish(self, topics: Iterable[str]) -> bool:
        """Whether every one of the topics may be published."""
        return all(_any_matches(self.publish, topic) for topic in topics)

    def may_read_at(self, path: str) -> bool:
        """Whether active subscriptions may be listed at this path of the hub."""
        return _any_matches(self.subscribe, path)

    def payload_of(self, matcher: str) -> str | None:
        """Return the payload of a subscription, as JSON, or None.

        `matcher` is the topic selector or matcher as the subscriber wrote it. Of a token's details
        (1.0), the first that matches it counts.
        """
        for payload in self.payloads:
            if payload.matchers is None or _any_matches(payload.matchers, matcher):
                return payload.json
        return None


ANONYMOUS: Final = Grant(dialect=None)
"""No token: public events, no publishing."""


def _any_matches(selectors: frozenset[Selector], topic: str) -> bool:
    return any(selector.matches(topic) for selector in selectors)
