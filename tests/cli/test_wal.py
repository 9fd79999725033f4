"""`noti wal` tells what a data directory holds, finds the first damage, and changes nothing."""

import fcntl
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from noti.cli import exit_status
from noti.history.commands import Publish, PublishBatch, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.history.notification import Event
from noti.history.store import Store
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import Entry, EntryKind, HardState, Snapshot
from noti.raft.core.records import new_entry
from noti.raft.storage.disk import LOCK_NAME, open_disk
from noti.raft.storage.recovery import SNAPSHOT_NAME
from noti.raft.storage.segments import encode_frame, read_segment, segment_name
from noti.raft.storage.wal import Wal
from tests import promises

FIRST, SECOND = segment_name(1), segment_name(2)
SEGMENT_BYTES = 2048
NODE_ID = "00000000000000aa"
IDENTITY = json.dumps({"name": "node1", "node_id": NODE_ID}).encode()
CONFIGURATION = encode_configuration(Configuration("c1", ("aa", "bb", "cc")))


def event(number: int, data: str = '{"user_id":7}') -> Event:
    return Event(number, f"id-{number}", ("jobs.noti.books",), data, 1_700_000_000_000)


def command(index: int, term: int = 1, data: bytes | None = None) -> Entry:
    if data is None:
        data = encode(PublishBatch("jobs/1", (event(index),), 1_700_000_001_000))
    return new_entry(index, term, EntryKind.COMMAND, data)


FOUNDING = [
    new_entry(1, 1, EntryKind.CONFIGURATION, CONFIGURATION),
    new_entry(2, 1, EntryKind.NOOP, b""),
    new_entry(3, 1, EntryKind.COMMAND, encode(SetLimits(HistoryLimits(500, 9)))),
]


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A data directory with two segments: entries 1 to 3, then one entry per write."""
    async with open_disk(tmp_path) as disk:
        await disk.replace("identity", IDENTITY)
        wal, _ = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
        await wal.append(FOUNDING, HardState(1, "aa"))
        for index in range(4, 24):
            await wal.append([command(index)], None)
    assert (tmp_path / SECOND).exists()
    return tmp_path


Noti: TypeAlias = Callable[..., Awaitable[int]]


@pytest.fixture
def noti(capsys: pytest.CaptureFixture[str]) -> Noti:
    """Run a command as a person would; what was said before is not its output."""

    async def run(*arguments: object) -> int:
        capsys.readouterr()
        # In a thread, because it is no part of this test's loop.
        return await trio.to_thread.run_sync(exit_status, ["wal", *map(str, arguments)])

    return run


def corrupt(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def state(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}


@contextmanager
def running_node(directory: Path) -> Iterator[None]:
    with (directory / LOCK_NAME).open("w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        yield


async def test_verify_prints_one_line_for_each_file(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    assert await noti("verify", directory) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["identity", LOCK_NAME, FIRST, SECOND]
    assert [line.split()[1] for line in lines] == ["ok", "not", "ok", "ok"]
    assert "node node1, id 00000000000000aa" in lines[0]


async def test_verify_knows_a_founders_promise(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    (directory / "promise").write_text('["a"]\n')
    assert await noti("verify", directory) == 0
    assert "promised to found a cluster" in capsys.readouterr().out


@promises.VERIFY_NAMES_DAMAGE
async def test_nothing_is_ever_changed(directory: Path, noti: Noti) -> None:
    torn = read_segment(2, (directory / SECOND).read_bytes()).end
    corrupt(directory / SECOND, torn)
    (directory / "snapshot.tmp").write_bytes(b"half")
    before = state(directory)
    await noti("verify", directory)
    await noti("dump", directory)
    assert state(directory) == before


@promises.VERIFY_NAMES_DAMAGE
async def test_verify_names_file_and_byte_of_the_first_damage(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    frame = read_segment(1, (directory / FIRST).read_bytes()).frames[2]
    corrupt(directory / FIRST, frame.offset + 20)
    assert await noti("verify", directory) == 1
    said = capsys.readouterr()
    assert f"{FIRST} at byte {frame.offset}: damaged bytes" in said.err
    assert said.err.count("\n") == 1
    by_file = {line.split()[0]: line for line in said.out.splitlines()}
    assert f"damaged      at byte {frame.offset}: " in by_file[FIRST]
    assert "not checked" in by_file[SECOND]


@promises.VERIFY_NAMES_DAMAGE
async def test_verify_takes_a_torn_tail_for_what_it_is(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    end = read_segment(2, (directory / SECOND).read_bytes()).end
    corrupt(directory / SECOND, end)
    assert await noti("verify", directory, "--json") == 0
    [finding] = [f for f in json.loads(capsys.readouterr().out) if f["file"] == SECOND]
    assert (finding["status"], finding["offset"]) == ("torn", end)


async def test_verify_misses_a_segment(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    (directory / FIRST).unlink()
    assert await noti("verify", directory) == 1
    assert f"{SECOND} at byte 0: entries 1 to " in capsys.readouterr().err


async def test_verify_misses_a_segment_between_others(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    (directory / SECOND).rename(directory / segment_name(3))
    assert await noti("verify", directory) == 1
    said = capsys.readouterr()
    assert f"{SECOND} at byte 0: the segment is missing" in said.err
    assert SECOND in said.out


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("identity", b"{", "identity at byte 0: the identity does not decode"),
        ("identity", b"{}", "identity at byte 0: the identity lacks name or node_id"),
        ("identity", None, "identity at byte 0: the file is missing"),
        (SNAPSHOT_NAME, b"rubbish" * 20, "snapshot at byte 0: this is not a snapshot"),
    ],
)
async def test_verify_checks_identity_and_snapshot(
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    noti: Noti,
    name: str,
    content: bytes | None,
    problem: str,
) -> None:
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    assert await noti("verify", directory) == 1
    assert problem in capsys.readouterr().err


async def test_verify_finds_an_entry_that_no_node_could_apply(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    async with open_disk(directory) as disk:
        wal, _ = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
        await wal.append([command(24, data=b"\x92\xcd\xff\xff\x01")], None)
    assert await noti("verify", directory) == 1
    assert "entry 24: command kind 65535 is unknown" in capsys.readouterr().err
    assert await noti("dump", directory) == 0
    assert "5 bytes: 92cdffff01" in capsys.readouterr().out


async def test_dump_shows_every_record(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    assert await noti("dump", directory) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"identity: node node1, id {NODE_ID}" in lines
    for end in (
        "segment 1, after entry 0; the log begins anew here",
        "1 hard state: voted for aa",
        "1 1 configuration: cluster c1, voters aa, bb, cc",
        "2 1 noop",
        "3 1 set limits: count 500, size bytes 9, age ms 0, per topic 0, topics max 10000",
        "4 1 publish batch: stream jobs/1, taken ms 2023-11-14T22:13:21.000+00:00, 1 events",
    ):
        assert any(line.endswith(end) for line in lines), end
    assert (
        "source seq 23, id id-23, topics jobs.noti.books, "
        'data {"user_id":7}, created ms 2023-11-14T22:13:20.000+00:00'
    ) in lines


async def test_dump_as_json_places_records_and_marks_the_replaced(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    async with open_disk(directory) as disk:
        wal, _ = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
        await wal.append([command(22, term=2)], HardState(2, None))
    assert await noti("dump", directory, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["identity"] == {"name": "node1", "node_id": NODE_ID}
    assert [segment["file"] for segment in described["segments"]] == [FIRST, SECOND]
    records = [record for segment in described["segments"] for record in segment["records"]]
    entries = [record for record in records if record["record"] == "entry"]
    assert [e["index"] for e in entries if e["replaced"]] == [22, 23]
    assert [e["index"] for e in entries if not e["replaced"]] == list(range(1, 23))
    assert entries[-1]["command"]["events"][0]["source_seq"] == 22
    first = described["segments"][0]["records"][0]
    assert (first["byte"], first["record"], first["sequence"]) == (12, "segment start", 1)


async def test_dump_shows_a_snapshot(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    store = Store()
    for index in range(4, 9):
        store.apply(command(index).data)
    async with open_disk(directory) as disk:
        wal, _ = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
        snapshot = Snapshot(8, 1, CONFIGURATION, (store.snapshot(),))
        await wal.save_snapshot(snapshot, keep_after=0)
    assert await noti("verify", directory) == 0
    assert "up to entry 8 of term 1" in capsys.readouterr().out
    assert await noti("dump", directory) == 0
    shown = capsys.readouterr().out
    assert "up to entry 8 of term 1; cluster c1, voters aa, bb, cc" in shown
    assert "seq 5, id id-8, topics jobs.noti.books" in shown


async def test_dump_shows_what_is_before_the_damage(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    frame = read_segment(1, (directory / FIRST).read_bytes()).frames[1]
    corrupt(directory / FIRST, frame.offset + 20)
    assert await noti("dump", directory) == 0
    shown = capsys.readouterr().out
    assert f"damaged at byte {frame.offset}" in shown
    assert "set limits: count 500" not in shown
    assert "id id-23" in shown


async def test_a_frame_with_a_broken_record_is_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    (tmp_path / "identity").write_bytes(IDENTITY)
    (tmp_path / FIRST).write_bytes(encode_frame(1, 0, b"no record") + bytes(100))
    assert await noti("verify", tmp_path) == 1
    assert f"{FIRST} at byte 0: " in capsys.readouterr().err
    assert await noti("dump", tmp_path) == 0
    assert "at byte 0: the record" in capsys.readouterr().out


async def test_a_terminal_never_obeys_an_event(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    async with open_disk(directory) as disk:
        wal, _ = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
        batch = PublishBatch("jobs/1", (event(24, data="\x1b[2J\nü"),))
        await wal.append([command(24, data=encode(batch))], None)
    assert await noti("dump", directory) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "data \\x1b[2J\\x0aü," in shown


@pytest.mark.parametrize("verb", ["dump", "verify"])
async def test_the_directory_of_a_running_node_is_rejected_unless_asked_for(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti, verb: str
) -> None:
    with running_node(directory):
        assert await noti(verb, directory) == 1
        said = capsys.readouterr()
        assert "is live: process 4711 uses it" in said.err
        assert said.out == ""
        assert await noti(verb, directory, "--live") == 0
        said = capsys.readouterr()
        assert "is live: a node uses it, and what is shown may change" in said.err
        assert said.out != ""
    assert await noti(verb, directory) == 0


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is not the data directory of a node"),
        ("nowhere", "No such file or directory"),
        ("file", "Not a directory"),
    ],
)
async def test_what_is_no_data_directory_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], noti: Noti, name: str, problem: str
) -> None:
    (tmp_path / "file").touch()
    assert await noti("verify", tmp_path / name) == 1
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1


async def test_dump_shows_what_a_publisher_said_of_an_event(
    directory: Path, capsys: pytest.CaptureFixture[str], noti: Noti
) -> None:
    said = Event(0, "id", ("a", "b"), "", 1_700_000_000_000, "chat", 3000, True, "key-1")
    async with open_disk(directory) as disk:
        wal, _ = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
        await wal.append([command(24, data=encode(Publish((said,))))], None)
    assert await noti("dump", directory) == 0
    end = "type chat, retry ms 3000, private True, idempotency key key-1\n"
    assert f"created ms 2023-11-14T22:13:20.000+00:00, {end}" in capsys.readouterr().out
