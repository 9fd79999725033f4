"""Draws the picture of a core that operators and the driver may see.

Enters: the parts of a core. Leaves: a `Status`. Never: changes anything.
"""

from dataclasses import dataclass

from noti.raft.core.events import Role
from noti.raft.core.following import Following
from noti.raft.core.gate import Gate
from noti.raft.core.leadership import Leadership
from noti.raft.core.log import RaftLog
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId


@dataclass(frozen=True, slots=True)
class Status:
    """What operators and the driver may see."""

    role: Role
    term: int
    leader: NodeId | None
    commit_index: int
    applied_index: int
    last_index: int
    first_index: int
    configuration: Configuration
    configuration_index: int
    """Where in the log it stands: it is committed when `commit_index` is not less."""
    followers: tuple[tuple[NodeId, int], ...]
    """As a leader: each other member and the index up to which it holds the log on disk."""
    leads_ready: bool
    """Leads and has applied an entry of its own term.

    Everything older is known to be applied too.
    """
    fresh_at: float | None
    """As a follower: when the leader announced a commit that is applied here by now.

    Everything committed before it spoke is then applied. None while no such moment is known.
    """
    log_memory_bytes: int = 0
    """What the log's entries in memory take."""
    last_contact_at: float = 0.0
    """As a follower: when the leader last spoke, or when this node began to wait for one."""
    disk_hung_since: float | None = None
    """When the disk was asked for what it does not answer; None while it works."""


def picture(
    position: tuple[Role, int, NodeId | None, int, int],
    *,
    log: RaftLog,
    leading: Leadership | None,
    following: Following,
    gate: Gate,
) -> Status:
    """Return the status of a node with this role, term, leader, commit and applied index."""
    role, term, leader, commit, applied = position
    return Status(
        role=role,
        term=term,
        leader=leader,
        commit_index=commit,
        applied_index=applied,
        last_index=log.last_index,
        first_index=log.first_index,
        configuration=log.configuration,
        configuration_index=log.configuration_index,
        followers=tuple(leading.replication.matches().items()) if leading else (),
        leads_ready=leading is not None and applied >= leading.first_index,
        fresh_at=following.fresh_at(applied),
        disk_hung_since=gate.hung_since,
        log_memory_bytes=log.held_bytes,
        last_contact_at=following.last_contact_at,
    )
