"""The cluster's level: which commands and snapshots all of its nodes can read.

Enters: the level that is replicated; what nodes support. Leaves: the level to raise it to; the
reason why a node is too old.
Never: I/O; a level that falls.

A level is a small integer, a part of the replicated state. A cluster begins at 0, which is what
version 0.6.0 writes, byte for byte. The leader raises it when all members of the cluster support
more, by a command of its own; only then may any node write what the level adds. So while nodes are
upgraded one by one, and until the last one is, each can go back to the release before (etcd's
cluster version works in the same way). A node that does not support a level stops at the command
that raises it, before anything that it cannot read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TRACED_EVENTS: Final = 1
"""From here on, batches of events may say which trace each of them belongs to; and snapshots say
the level."""

SUPPORTED: Final = 1
"""The highest level that this release reads and writes."""

_RELEASES: Final = {TRACED_EVENTS: "0.7.0"}
"""The first release that supports a level."""

RAISE_LEVEL: Final = 9
"""The command's kind."""


@dataclass(frozen=True, slots=True)
class RaiseLevel:
    """Let all nodes write what a level adds; nothing happens when the level is there already."""

    level: int


def level_to_raise(level: int, supported: Iterable[int | None]) -> int | None:
    """Return the level that the cluster can be raised to; None when it stays.

    `supported` is what each of its members supports, learners too; None for one that has not said
    so, as it is away.
    """
    highest = min((0 if one is None else one for one in supported), default=0)
    return highest if highest > level else None


def too_old(level: int, supports: int) -> str:
    """Return why a program that supports `supports` cannot be in a cluster at `level`."""
    release = _RELEASES.get(level)
    wanted = "the release that the other nodes run" if release is None else f"{release} or newer"
    return (
        f"the cluster is at level {level}, and this release of noti supports level {supports} "
        f"at most: install {wanted}"
    )
