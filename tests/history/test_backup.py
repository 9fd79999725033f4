"""A backup holds the whole state, is never read when it is not whole, and begins a new cluster."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from noti.errors import MessageInvalid
from noti.history.backup import (
    NUMBERS_SKIPPED,
    BackupReader,
    encode_backup,
    state_of_new_cluster,
)
from noti.history.commands import Publish, PublishBatch, SetLimits, encode
from noti.history.levels import RaiseLevel
from noti.history.limits import HistoryLimits
from noti.history.notification import Event
from noti.history.revocations import Revoke
from noti.history.snapshot import StoreParts, pieces_of
from noti.history.store import Store


def event(number: int, topic: str, key: str = "") -> Event:
    return Event(number, f"id-{number}", (topic,), "data", 1_700_000_000_000, idempotency_key=key)


def store() -> Store:
    """Return a store with a window, older last events of topics, floors, keys and revocations."""
    made = Store()
    made.apply(encode(SetLimits(HistoryLimits(4, 1_000_000, 0, 1, 10))))
    batch = tuple(event(number, "quiet" if number == 1 else "busy") for number in range(1, 9))
    made.apply(encode(PublishBatch("jobs/1", batch, 1_700_000_000_000)))
    made.apply(encode(Publish((event(0, "keyed", "key"),), 1_700_000_000_000)))
    made.apply(encode(Revoke("7", "", 1_900_000_000_000, 1_700_000_000_000)))
    return made


def file_of(made: Store) -> bytes:
    return b"".join(encode_backup({"node": "n1"}, made.snapshot_pieces()))


def read(content: bytes, piece_bytes: int = 1000) -> tuple[dict[str, Any], StoreParts]:
    reader = BackupReader()
    for start in range(0, len(content), piece_bytes):
        reader.feed(content[start : start + piece_bytes])
    return reader.about, reader.finish()


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000, 1_000_000])
def test_state_comes_back_whole_however_the_file_is_cut(piece_bytes: int) -> None:
    made = store()
    about, parts = read(file_of(made), piece_bytes)
    assert b"".join(pieces_of(parts)) == made.snapshot()
    assert about == {"noti_backup": 1, "node": "n1"}


def test_first_line_says_what_the_file_is() -> None:
    first, _, _ = file_of(store()).partition(b"\n")
    assert json.loads(first) == {"noti_backup": 1, "node": "n1"}


def cuts_and_changes() -> Iterator[bytes]:
    content = file_of(store())
    for end in range(0, len(content), 13):
        yield content[:end]
    for place in range(0, len(content), 13):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    yield content + b"\0"
    yield content + content


@pytest.mark.parametrize("content", list(cuts_and_changes()))
def test_file_that_is_cut_or_changed_anywhere_is_refused(content: bytes) -> None:
    with pytest.raises(MessageInvalid):
        read(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"SQLite format 3\n", "not a backup"),
        (b"{}\n", "not a backup"),
        (b"[" * 5000, "not a backup"),
        (b'{"noti_backup": 2}\n', "format 2; this program reads 1"),
        (b'{"noti_backup": 1}\n' + b"\xff" * 8, "longer than any"),
        (b"", "cut off"),
    ],
)
def test_what_is_no_backup_is_told_in_words(content: bytes, said: str) -> None:
    with pytest.raises(MessageInvalid, match=said):
        read(content)


def restored(made: Store) -> Store:
    return Store(state_of_new_cluster(read(file_of(made))[1]))


def test_new_cluster_has_the_same_events_under_numbers_that_nobody_has_seen() -> None:
    old = store()
    new = restored(old)
    assert [one.seq - NUMBERS_SKIPPED for one in new.history()] == [
        one.seq for one in old.history()
    ]
    assert [one[1:] for one in new.history()] == [one[1:] for one in old.history()]
    assert new.first_seq - NUMBERS_SKIPPED == old.first_seq
    assert Store.decode(new.snapshot()).snapshot() == new.snapshot()


def test_new_cluster_begins_at_the_level_of_the_old_one() -> None:
    old = store()
    old.apply(encode(RaiseLevel(1)))
    assert restored(old).level == 1


def test_reader_with_a_number_of_the_old_cluster_is_told_of_a_gap() -> None:
    new = restored(store())
    last_of_old = store().last_seq
    for topics in (None, ["quiet"], ["busy"], ["unknown"]):
        assert new.lost_through(topics) > last_of_old


def test_new_cluster_still_knows_what_was_sent_twice_and_who_is_refused() -> None:
    new = restored(store())
    assert new.floor("jobs/1") == 8
    assert new.apply(encode(Publish((event(0, "keyed", "key"),), 1_700_000_000_001))) == []
    assert new.apply(encode(PublishBatch("jobs/1", (event(8, "busy"),), 1))) == []
    assert new.revocations.is_revoked("7", None, 1_800_000_000)


def test_new_cluster_goes_on_numbering_and_keeping_as_the_old_one_would() -> None:
    old, new = store(), restored(store())
    for number in range(9, 15):
        command = encode(PublishBatch("jobs/1", (event(number, "busy"),), 1_700_000_000_000))
        (one,), (other,) = old.apply(command), new.apply(command)
        assert other.seq - one.seq == NUMBERS_SKIPPED
    assert [one.id for one in new.history()] == [one.id for one in old.history()]
