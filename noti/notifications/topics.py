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
