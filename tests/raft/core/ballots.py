"""What must hold of all that is said in elections.

Enters: what nodes say, with their disks and configurations. Leaves: an `AssertionError`.
Never: changes anything.
"""

from noti.raft.core.membership import Configuration, has_quorum
from noti.raft.core.messages import HardState, Message, NodeId, VoteRequest, VoteResponse


class Ballots:
    """One vote per node and term, on disk; no campaign that a quorum did not encourage."""

    def __init__(self) -> None:
        self._votes: dict[tuple[NodeId, int], NodeId] = {}
        self._encouraged: dict[tuple[NodeId, int], set[NodeId]] = {}
        self._stood_in: dict[tuple[NodeId, int], Configuration] = {}

    def stands(self, name: NodeId, term: int, configuration: Configuration) -> None:
        """Note a candidate: what it says waits for its disk, and is judged by this configuration;
        it may have another by then."""
        self._stood_in[name, term] = configuration

    def check(
        self,
        name: NodeId,
        to: NodeId,
        message: Message,
        on_disk: HardState,
        configuration: Configuration,
    ) -> None:
        match message:
            case VoteResponse(granted=True, pre=True):
                self._encouraged.setdefault((to, message.term), set()).add(name)
            case VoteResponse(granted=True):
                vote = HardState(message.term, to)
                # A newer term on disk is as good: this node will never vote in the older one again.
                superseded = on_disk.term > message.term
                assert superseded or on_disk == vote, "granted a vote not on disk"
                self._check_vote(name, to, message.term)
            case VoteRequest(pre=False):
                self._check_vote(name, name, message.term)
                stood = name, message.term
                encouraged = self._encouraged.get(stood, set())
                if not message.transfer:
                    stood_in = self._stood_in.get(stood, configuration)
                    assert has_quorum(stood_in, encouraged | {name}), "no pre-vote"
            case _:
                pass

    def _check_vote(self, name: NodeId, candidate: NodeId, term: int) -> None:
        known = self._votes.setdefault((name, term), candidate)
        assert known == candidate, f"{name} voted twice in term {term}"
