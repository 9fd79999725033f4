"""Decides whether a subscription's topic selector covers a notification.

Enters: one selector and the topics of one notification. Leaves: yes or no.
Never: I/O, state, case folding or any other normalisation: characters are compared as they are.
"""

from collections.abc import Sequence

EVERYTHING = "*"
"""The selector that covers every notification (Mercure 0.x, "Topic Selectors")."""


def matches(selector: str, topics: Sequence[str]) -> bool:
    """Return whether `selector` is `*` or equal to one of `topics`."""
    return selector == EVERYTHING or selector in topics


def is_exact(selector: str) -> bool:
    """Return whether `selector` covers one topic only, the one that it is equal to: what it covers
    can be looked up instead of being tried.
    """
    return selector != EVERYTHING
