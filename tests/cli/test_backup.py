"""`noti backup`, `restore` and `recover` at real nodes: nothing that was there is lost."""

import json
import signal
from pathlib import Path

import httpx
import pytest
import trio

from noti.cli import exit_status
from tests.authorization.tokens import SECRET, token_v0
from tests.history.test_backup import file_of, store
from tests.interop.processes import NodeProcess, destroyed_in_the_end, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]
LIMIT_S = 60.0
MERCURE = "/.well-known/mercure"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(SECRET)
    return path


@pytest.fixture
def admin(tmp_path: Path) -> Path:
    path = tmp_path / "admin"
    path.write_text(token_v0(["*"], ["*"]))
    return path


async def noti(*arguments: str) -> int:
    return await trio.to_thread.run_sync(exit_status, list(arguments))


async def publish(node: NodeProcess, first: int, last: int) -> None:
    headers = {"Authorization": f"Bearer {token_v0(['*'])}"}
    url = f"http://{written(node.http)}{MERCURE}"
    async with httpx.AsyncClient(timeout=LIMIT_S, headers=headers) as client:
        for number in range(first, last + 1):
            form = {"topic": "t", "data": str(number), "id": f"urn:x:{number}"}
            (await client.post(url, data=form)).raise_for_status()


async def read(node: NodeProcess, count: int, after: str = "earliest") -> list[str]:
    """Return the next lines of data, also of gaps, behind an event."""
    return await trio.to_thread.run_sync(_read, node, count, after)


def _read(node: NodeProcess, count: int, after: str) -> list[str]:
    url, found = f"http://{written(node.http)}{MERCURE}", list[str]()
    query = {"topic": "t", "lastEventID": after}
    with httpx.stream("GET", url, params=query, timeout=LIMIT_S) as answer:
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "data":
                found.append(value)
            if len(found) == count:
                return found
    raise AssertionError(f"the stream ended after {found}")


async def stop(node: NodeProcess) -> None:
    node.signal(signal.SIGTERM)
    assert await node.wait() == 0


async def test_backup_becomes_another_cluster_with_all_events_that_others_join(
    tmp_path: Path, key: Path, admin: Path
) -> None:
    flags = ("--publisher-jwt-key-file", str(key))
    old, new, joining = (NodeProcess(name, tmp_path) for name in ("old", "new", "joining"))
    backup = tmp_path / "backup"
    async with destroyed_in_the_end([old, new, joining]):
        with trio.fail_after(LIMIT_S):
            old.start(*flags)
            await old.until_up()
            await publish(old, 1, 20)
            where = ("--url", f"http://{written(old.http)}", "--token-file", str(admin))
            assert await noti("backup", *where, str(backup)) == 0
            assert backup.stat().st_mode & 0o777 == 0o600
            await publish(old, 21, 25)
            await stop(old)

            place = ("--data-dir", str(new.data_dir), "--name", "new")
            assert await noti("restore", str(backup), *place) == 0
            new.start(*flags)
            await new.until_up()
            await publish(new, 21, 22)
            numbers = [str(number) for number in range(1, 23)]
            assert await read(new, 22) == numbers
            assert await read(new, 3, after="urn:x:19") == ["20", "21", "22"], "where it was"
            gap = json.loads((await read(new, 1, after="urn:x:25"))[0])
            assert gap["requested"] == "urn:x:25", "this event is not there any more"

            seed = ("--join", written(new.gossip))
            joining.start(*flags, *seed)
            await joining.until_up()
            assert await read(joining, 22) == numbers

            old.start(*flags, *seed)
            status = await old.until_up()
            assert status["voters"] == 1, "it is the old cluster by itself"
            report = await new.status()
            assert report is not None
            assert {one["name"] for one in report["members"]} == {"new", "joining"}


async def test_node_that_is_left_of_two_becomes_a_cluster_that_commits(
    tmp_path: Path, key: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left, lost = NodeProcess("left", tmp_path), NodeProcess("lost", tmp_path)
    flags = ("--publisher-jwt-key-file", str(key), "--bootstrap-expect", "2")
    async with destroyed_in_the_end([left, lost]):
        with trio.fail_after(LIMIT_S):
            left.start(*flags)
            lost.start(*flags, "--join", written(left.gossip))
            await left.until_up()
            await publish(left, 1, 20)
            await lost.kill()
            assert await noti("recover", "--data-dir", str(left.data_dir), "--yes") == 1
            assert "stop it first" in capfd.readouterr().err
            await left.kill()
            capfd.readouterr()
            recovered = await noti("recover", "--data-dir", str(left.data_dir), "--yes")
            assert recovered == 0, capfd.readouterr()
            assert "is lost, also if it was acknowledged" in capfd.readouterr().out
            left.start()
            await left.until_up()
            await publish(left, 21, 22)
            assert await read(left, 22) == [str(number) for number in range(1, 23)]


def test_wrong_files_and_places_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, file, place = file_of(store()), tmp_path / "backup", tmp_path / "place"
    arguments = ["restore", str(file), "--data-dir", str(place), "--name", "n"]
    for wrong, said in (
        (None, "cannot read"),
        (b"", "cut off"),
        (b"#!/bin/sh\n", "not a backup of noti"),
        (content[:-1], "cut off"),
        (content[:200] + b"\xff" + content[201:], "fails its checksum"),
    ):
        if wrong is not None:
            file.write_bytes(wrong)
        assert exit_status(arguments) == 1
        assert said in capsys.readouterr().err
        assert not place.exists()
    file.write_bytes(content)
    assert exit_status(arguments) == 0
    assert "5 events" in capsys.readouterr().out
    assert exit_status(arguments) == 1
    assert "empty or new" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "a b", "a/b", "n" * 129, "\u00e9"])
def test_name_that_no_node_may_have_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, place = tmp_path / "backup", tmp_path / "place"
    file.write_bytes(file_of(store()))
    assert exit_status(["restore", str(file), "--data-dir", str(place), "--name", name]) == 2
    assert "is not a node name; use 1 to 128 letters" in capsys.readouterr().err
    assert not place.exists()


def test_stopped_node_is_backed_up_without_being_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, file, place = tmp_path / "source", tmp_path / "backup", tmp_path / "place"
    file.write_bytes(file_of(store()))
    assert exit_status(["restore", str(file), "--data-dir", str(source), "--name", "n"]) == 0
    file.unlink()
    assert exit_status(["backup", "--data-dir", str(source), str(file)]) == 0
    assert exit_status(["restore", str(file), "--data-dir", str(place), "--name", "n"]) == 0
    assert capsys.readouterr().out.count("5 events") == 3


def test_backup_needs_a_token_and_a_node(
    tmp_path: Path, admin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "backup"
    assert exit_status(["backup", str(file)]) == 2
    assert "--token-file is missing" in capsys.readouterr().err
    where = ["--url", "http://127.0.0.1:1", "--token-file", str(admin)]
    assert exit_status(["backup", *where, str(file)]) == 1
    assert "no answer from" in capsys.readouterr().err
    assert not file.exists()
