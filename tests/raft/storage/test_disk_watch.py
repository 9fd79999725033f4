"""What tells a disk that hangs from one that works."""

from noti.raft.storage.disk_watch import DiskWatch


def watch(*, ordered: int, done: int, now: float) -> DiskWatch:
    found = DiskWatch(election_timeout_s=0.5)
    found.saw(ordered=ordered, done=done, now=now)
    return found


def test_disk_that_owes_nothing_never_hangs() -> None:
    disk = watch(ordered=3, done=3, now=1.0)
    assert disk.deadline() is None
    disk.look(100.0)
    assert disk.hung_since is None


def test_disk_hangs_when_it_owes_an_answer_for_two_election_timeouts() -> None:
    disk = watch(ordered=3, done=2, now=1.0)
    disk.saw(ordered=5, done=2, now=1.8)
    assert disk.deadline() == 2.0
    disk.look(1.9)
    assert disk.hung_since is None
    disk.look(2.1)
    assert disk.hung_since == 1.0
    assert disk.deadline() is None, "there is nothing more to find out"


def test_disk_that_answers_slowly_does_not_hang() -> None:
    disk = watch(ordered=3, done=0, now=1.0)
    for done, now in ((1, 1.9), (2, 2.8)):
        disk.saw(ordered=3, done=done, now=now)
        disk.look(now)
    assert disk.hung_since is None
    assert disk.deadline() == 3.8


def test_one_answer_ends_it() -> None:
    disk = watch(ordered=3, done=1, now=1.0)
    disk.look(2.0)
    assert disk.hung_since is not None
    disk.saw(ordered=3, done=2, now=9.0)
    assert disk.hung_since is None
    assert disk.deadline() == 10.0


def test_process_that_was_stopped_itself_blames_no_disk() -> None:
    disk = watch(ordered=3, done=2, now=1.0)
    disk.look(8.0)
    assert disk.hung_since is None
    disk.look(9.0)
    assert disk.hung_since == 8.0, "it had its time then"
