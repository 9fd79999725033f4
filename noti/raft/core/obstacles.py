"""Says why a leader gets nothing done, and whether somebody else would do better.

Enters: what a leader knows of the others and of its own disk. Leaves: a reason in words, and a yes
or no. Never: changes anything.

Followers hold entries before their leader does when it is the leader's disk that is slow: they can
commit without it, but it can apply nothing, so its clients get no answer.
"""

from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId
from noti.raft.core.quorum import has_quorum
from noti.raft.core.replication import Replication


def has_better(replication: Replication, durable: int, *, now: float) -> bool:
    """Whether a voter that answers has more on its disk than this leader."""
    successor = replication.best_successor(now)
    return successor is not None and replication.matches()[successor] > durable


def obstacle(
    replication: Replication,
    configuration: Configuration,
    *,
    own_id: NodeId,
    index: int,
    durable: int,
    now: float,
) -> str:
    """Return why the entry at `index` is not committed and applied here."""
    silent = replication.silent(now)
    voters = [node for node in configuration.members if configuration.is_voter(node)]
    answering = [node for node in voters if node not in silent]
    if not has_quorum(configuration, answering):
        return f"no majority answers; nothing is heard of {_names(silent)}"
    matches = {**replication.matches(), own_id: durable}
    missing = [node for node in answering if matches[node] < index]
    if own_id in missing:
        return "this node's own disk has not taken its entry yet"
    return f"the entry is not on the disk of {_names(missing)}"


def _names(nodes: list[NodeId]) -> str:
    return ", ".join(sorted(nodes)) or "nobody"
