"""What a follower does with its leader's requests."""

from noti.raft.core.following import Following
from noti.raft.core.gate import Gate
from noti.raft.core.log import RaftLog
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRequest,
    EntryKind,
    HardState,
    Message,
    NodeId,
)
from noti.raft.core.records import new_entry


class Answers:
    """A follower whose log has nine entries, and what it answered its leader."""

    def __init__(self) -> None:
        log = RaftLog(None, [new_entry(n, 1, EntryKind.COMMAND, b"") for n in range(1, 10)])
        self.gate = Gate(HardState(3), durable=5, election_timeout_s=0.5)
        self.sent: list[Message] = []
        self.following = Following("n1", 3, log=log, gate=self.gate, send=self._send, now=0.0)

    def _send(self, to: NodeId, message: Message) -> None:
        assert to == "leader"
        self.sent.append(message)

    def request(self, previous: int = 7, round_: int = 1, commit: int = 0) -> list[Message]:
        """Return what is answered to a request without entries."""
        self.sent.clear()
        request = AppendRequest("leader", 3, previous, 1, commit, (), round_)
        self.following.note_request(request, 1.0)
        self.following.append(request, 0)
        return self.sent


def test_leader_may_count_on_what_equals_its_log_and_is_on_disk() -> None:
    follower = Answers()
    assert follower.request(previous=7) == [AppendAccepted("n1", 3, 5, 1)]
    follower.gate.durable = 9
    assert follower.request(previous=7) == [AppendAccepted("n1", 3, 7, 1)]


def test_late_request_takes_no_round_back() -> None:
    """A reader would have to wait for the next heartbeat."""
    follower = Answers()
    assert follower.request(round_=4) == [AppendAccepted("n1", 3, 5, 4)]
    follower.following.stream_is_new()
    assert follower.request(round_=3) == [AppendAccepted("n1", 3, 5, 4)]


def test_leader_gets_no_answer_twice_unless_its_stream_is_new() -> None:
    follower = Answers()
    assert follower.request(), "it was answered nothing yet"
    assert follower.request() == []
    follower.gate.durable = 6
    assert follower.request() == [AppendAccepted("n1", 3, 6, 1)]
    assert follower.request(round_=2) == [AppendAccepted("n1", 3, 6, 2)]
    follower.following.stream_is_new()
    assert follower.request(round_=2) == [AppendAccepted("n1", 3, 6, 2)]


def test_commit_never_passes_what_is_known_to_equal_the_leaders_log() -> None:
    follower = Answers()
    request = AppendRequest("leader", 3, 7, 1, 99, (), 1)
    assert follower.following.append(request, commit=2) == 7
    assert follower.following.append(request, commit=8) == 8, "and never falls"
