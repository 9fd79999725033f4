"""What a core shows of itself."""

from noti.raft.core.events import Role
from noti.raft.core.following import Following
from noti.raft.core.gate import Gate
from noti.raft.core.log import RaftLog
from noti.raft.core.messages import HardState
from noti.raft.core.status import picture


def test_status_of_a_follower_reports_its_leader_and_its_disk() -> None:
    log = RaftLog(None, [])
    gate = Gate(HardState(3), durable=0, election_timeout_s=0.5)
    gate.order(4, None, 8.0)
    gate.look(9.0)
    following = Following("n2", 3, log=log, gate=gate, send=lambda *_: None, now=7.0)
    status = picture(
        (Role.FOLLOWER, 3, "n1", 0, 0), log=log, leading=None, following=following, gate=gate
    )
    assert (status.role, status.term, status.leader) == (Role.FOLLOWER, 3, "n1")
    assert status.last_contact_at == 7.0
    assert status.disk_hung_since == 8.0
    assert not status.leads_ready
    assert status.followers == ()
