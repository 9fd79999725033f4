"""Nodes as gossip shows them, and the leader's view of the cluster, in one letter for each node."""

from noti.membership.tags import TAG_CLUSTER, TAG_LEAVING, TAG_NODE_ID
from noti.raft.core.events import Role
from noti.raft.core.membership import Change, Configuration
from noti.raft.core.status import Status
from noti.swim.core.messages import Member, MemberState


def member(
    node: str,
    state: MemberState = MemberState.ALIVE,
    cluster: str = "c1",
    *,
    leaving: bool = False,
) -> Member:
    tags = {TAG_NODE_ID: node, TAG_CLUSTER: cluster}
    if leaving:
        tags[TAG_LEAVING] = "1"
    return Member(f"name-{node}", ("10.0.0.1", 8401), tags, state, 1)


def leaving(node: str) -> Member:
    return member(node, leaving=True)


def status(voters: str, learners: str = "", caught_up: str = "", last_index: int = 1000) -> Status:
    followers = {n: last_index if n in caught_up else 1 for n in voters + learners}
    return Status(
        role=Role.LEADER,
        term=2,
        leader=voters[0],
        commit_index=last_index,
        applied_index=last_index,
        last_index=last_index,
        first_index=1,
        configuration=Configuration("c1", voters=tuple(voters), learners=tuple(learners)),
        configuration_index=1,
        followers=tuple(followers.items()),
        leads_ready=True,
        fresh_at=None,
    )


def change(add: str = "", promote: str = "", remove: str = "", demote: str = "") -> Change:
    return Change(frozenset(add), frozenset(promote), frozenset(remove), frozenset(demote))
