"""What a core shows of itself."""

from noti.raft.core.events import Role
from noti.raft.core.follower_view import Following
from noti.raft.core.log import RaftLog
from noti.raft.core.status import picture
from noti.raft.storage.disk_watch import DiskWatch


def test_picture_of_a_follower_tells_of_its_leader_and_its_disk() -> None:
    following, disk = Following(7.0), DiskWatch(0.5)
    disk.saw(ordered=1, done=0, now=8.0)
    disk.look(9.0)
    status = picture((Role.FOLLOWER, 3, "n1", 0, 0), RaftLog(None, []), None, following, disk)
    assert (status.role, status.term, status.leader) == (Role.FOLLOWER, 3, "n1")
    assert status.heard_at == 7.0
    assert status.disk_hung_since == 8.0
    assert not status.leads_ready
    assert status.followers == ()
