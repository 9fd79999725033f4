"""Steps from one membership configuration to another.

Enters: a configuration and what should change. Leaves: the next configuration, or why not.
Never: proposes, counts votes, looks at gossip (`noti.membership.voters` does).

One voter more or less is one step, because any two majorities then overlap (thesis 4.1). Anything
larger goes through a joint configuration (thesis 4.3) that the leader leaves as soon as it is
committed. Learners may change in any number: they do not vote.
"""

from dataclasses import dataclass, replace

from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId


@dataclass(frozen=True, slots=True)
class Change:
    """What should become of the members; ids that are already so are no error."""

    add: frozenset[NodeId] = frozenset()
    """To receive the log as learners."""
    promote: frozenset[NodeId] = frozenset()
    """Learners that should vote."""
    remove: frozenset[NodeId] = frozenset()
    """To be neither voter nor learner any more."""
    demote: frozenset[NodeId] = frozenset()
    """Voters that should be learners."""

    def __bool__(self) -> bool:
        return bool(self.add or self.promote or self.remove or self.demote)


def next_configuration(current: Configuration, change: Change) -> Configuration | None:
    """Return the configuration to append for `change`; None when it changes nothing.

    Raises `ValueError` when it must not be done: the cluster is between two configurations, a node
    to promote is no learner, or nobody would be left to vote.
    """
    if current.outgoing:
        raise ValueError("the last change is not finished")
    strangers = change.promote - set(current.learners) - set(current.voters)
    if strangers:
        raise ValueError(f"only learners can be promoted, not {sorted(strangers)}")
    voters = (set(current.voters) | change.promote) - change.remove - change.demote
    demoted = change.demote & set(current.voters)
    learners = ((set(current.learners) | change.add | demoted) - voters) - change.remove
    if not voters:
        raise ValueError("the last voter cannot be removed")
    following = replace(
        current,
        voters=tuple(sorted(voters)),
        outgoing=current.voters if len(voters ^ set(current.voters)) > 1 else (),
        learners=tuple(sorted(learners)),
    )
    return None if following == current else following


def leave_joint(current: Configuration) -> Configuration:
    """Return the configuration that ends a joint one."""
    assert current.outgoing, "not joint"
    return replace(current, outgoing=())
