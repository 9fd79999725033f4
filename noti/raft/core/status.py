"""Draws the picture of a core that operators and the driver may see.

Enters: the parts of a core. Leaves: a `Status`. Never: changes anything.
"""

from noti.raft.core.events import Role, Status
from noti.raft.core.following import Following
from noti.raft.core.gate import Gate
from noti.raft.core.leadership import Leadership
from noti.raft.core.log import RaftLog
from noti.raft.core.messages import NodeId


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
        heard_at=following.heard_at,
    )
