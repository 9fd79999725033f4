"""Files that version 0.6.0 wrote are read, and written again as they were until the level rises.

`release_0_6_0/data` is the directory of a node, alone in its cluster, after 60 events of `news` and
one of `quiet`; it keeps 30 events, and 2 of each topic. `backup` is what its `noti backup` made.
"""

from pathlib import Path

from noti.cli.new_cluster import read_store
from noti.history.backup import BackupReader
from noti.history.commands import encode
from noti.history.levels import SUPPORTED, RaiseLevel
from noti.history.store import Store, decode_store
from noti.raft.storage.snapshot_file import decode_snapshot, encode_snapshot

FILES = Path(__file__).parent / "release_0_6_0"


def shown(store: Store) -> list[tuple[int, str, str]]:
    return [(one.seq, one.topics[0], one.data) for one in store.history()]


EXPECTED = [
    *((number, "news", f"event {number}") for number in range(32, 61)),
    (61, "quiet", "last"),
]


def test_log_and_snapshot_are_read() -> None:
    store, index = read_store(FILES / "data")
    assert shown(store) == EXPECTED
    assert store.history()[-1].id == "quiet-1"
    assert store.level == 0
    assert index > 0


def test_snapshot_is_written_again_byte_for_byte() -> None:
    content = (FILES / "data/snapshot").read_bytes()
    snapshot = decode_snapshot(content)
    store = decode_store(snapshot.pieces)
    assert store.snapshot() == b"".join(snapshot.pieces)
    assert b"".join(encode_snapshot(snapshot)) == content


def test_backup_is_read() -> None:
    reader = BackupReader()
    reader.feed((FILES / "backup").read_bytes())
    assert shown(Store(reader.finish())) == EXPECTED


def test_state_stays_the_same_when_the_level_rises() -> None:
    store, _ = read_store(FILES / "data")
    store.apply(encode(RaiseLevel(SUPPORTED)))
    again = Store.decode(store.snapshot())
    assert shown(again) == EXPECTED
    assert again.level == SUPPORTED
