"""How much history is kept: part of the replicated state, so that all nodes evict alike."""

from dataclasses import dataclass
from typing import Final

COUNT_DEFAULT: Final = 1000
"""Events kept until the first `SetLimits`, as nodes of version 0.2 did; the same constant on every
node, never a setting."""

NO_LIMIT: Final = 2**63 - 1
"""More than any cluster keeps."""

TOPICS_DEFAULT: Final = 10_000


@dataclass(frozen=True, slots=True)
class HistoryLimits:
    """What every node keeps for readers that resume; the defaults are those of an empty log."""

    count: int = COUNT_DEFAULT
    """Events in the window, which holds the newest without a hole; at least 1."""
    size_bytes: int = NO_LIMIT
    """Topics, data, ids and types of all kept events, in UTF-8; at least 1."""
    age_ms: int = 0
    """How long after a node took it an event is kept at most; 0 for ever."""
    per_topic: int = 0
    """So many of the newest events of each topic outlive the window; 0 for none."""
    topics_max: int = TOPICS_DEFAULT
    """Topics that have such events; the least recently published one is forgotten first; at least
    1."""
