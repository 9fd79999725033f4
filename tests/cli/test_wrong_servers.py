"""Of several URLs, one of another server is passed over; the word of a node is final."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noti.cli import exit_status
from noti.history.backup import encode_backup
from noti.history.store import Store
from tests.cli import strangers
from tests.cli.strangers import answering, listening

STRANGERS = {
    "page": strangers.page,
    "missing": strangers.missing,
    "other-api": strangers.other_api,
    "garbage": strangers.garbage,
}
KNOWN = {"node": "n", "events": [], "refused": [], "last_seq": 9}
COMMANDS = ["status", "tail", "publish", "backup", "trace", "disconnect"]


@contextmanager
def counted(
    serve: Callable[[socket.socket, threading.Event], None],
) -> Iterator[tuple[str, list[None]]]:
    """Yield the URL of a server, and a list that grows with each of its connections."""
    asked: list[None] = []

    def count(connection: socket.socket, over: threading.Event) -> None:
        asked.append(None)
        serve(connection, over)

    with listening(count) as port:
        yield f"http://127.0.0.1:{port}", asked


def node_for(command: str) -> Callable[[socket.socket, threading.Event], None]:
    """Return who answers the requests of a command as a node does."""
    match command:
        case "status":
            return answering("200 OK", "application/json", b'{"ready": true}')
        case "tail":
            return answering("200 OK", "text/event-stream", b"id: 1\ndata: hello\n\n")
        case "publish":
            return answering("200 OK", "text/plain; charset=utf-8", b"id-1")
        case "backup":
            about = {"node": "n", "build": "1", "at_ms": 1}
            parts = encode_backup(about, Store().snapshot_pieces())
            return answering("200 OK", "application/octet-stream", b"".join(parts))
        case "trace":
            known = KNOWN | {"refused": [{"times": 1, "at_ms": 1, "reason": "no"}]}
            return answering("200 OK", "application/json", json.dumps(known).encode())
        case _:
            return answering("204 No Content", "text/plain", b"")


def arguments(command: str, tmp_path: Path) -> list[str]:
    token = tmp_path / "token"
    token.write_text("a.b.c")
    given = [command, "--timeout=5"]
    match command:
        case "tail":
            return [*given, "--count=1"]
        case "publish":
            return [*given, "--topic=t", "--data=x", f"--token-file={token}"]
        case "backup":
            return [*given, str(tmp_path / "backup"), f"--token-file={token}"]
        case "trace":
            return [*given, "event"]
        case "disconnect":
            return [*given, "--subject=s", f"--token-file={token}"]
        case _:
            return given


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_the_next_node_is_asked_when_the_first_url_is_another_servers(
    command: str, stranger: str, tmp_path: Path
) -> None:
    with (
        counted(STRANGERS[stranger]) as (wrong, _),
        counted(node_for(command)) as (right, asked),
    ):
        urls = ["--url", wrong, "--url", right]
        assert exit_status([*arguments(command, tmp_path), *urls]) == 0
    assert len(asked) == 1


@pytest.mark.parametrize("command", ["tail", "publish", "backup", "disconnect"])
@pytest.mark.parametrize("status", ["400", "401", "403", "409", "413"])
def test_the_refusal_of_a_node_is_final(
    command: str, status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = answering(f"{status} No", "text/plain; charset=utf-8", b"because")
    with counted(refusing) as (first, _), counted(node_for(command)) as (second, asked):
        urls = ["--url", first, "--url", second]
        assert exit_status([*arguments(command, tmp_path), *urls]) == 1
    assert "because" in capsys.readouterr().err
    assert not asked, "another node would be asked for what one has refused"


@pytest.mark.parametrize("command", ["tail", "publish", "backup", "disconnect"])
def test_that_all_are_other_servers_ends_a_command(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with counted(strangers.missing) as (one, _), counted(strangers.page) as (two, asked):
        urls = ["--url", one, "--url", two]
        assert exit_status([*arguments(command, tmp_path), *urls]) == 1
    assert two in capsys.readouterr().err.splitlines()[-1]
    assert len(asked) == 1


def test_json_of_another_server_is_no_id_of_an_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with counted(answering("200 OK", "application/json", b"{}")) as (url, _):
        assert exit_status([*arguments("publish", tmp_path), "--url", url]) == 1
    assert "no hub" in capsys.readouterr().err


LOGINS = ["user:hush", "user:a/hush", "user:hush@x", "user:a/b@hush"]


@pytest.mark.parametrize("command", [*COMMANDS, "members"])
@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("form", ["lines", "json"])
def test_login_in_a_url_is_shown_nowhere(
    command: str, login: str, form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    as_json = ["--json"] if form == "json" and command in ("tail", "trace", "status") else []
    given = [*arguments(command, tmp_path), *as_json]
    given[1] = "--timeout=0.5"
    with counted(node_for(command)) as (right, _), counted(strangers.page) as (wrong, _):
        nobody = "http://127.0.0.1:1"
        for urls in ([nobody], [wrong], [right], [nobody, wrong], [wrong, right]):
            logged_in = [f"--url={url.replace('//', f'//{login}@')}" for url in urls]
            exit_status([*given, *logged_in])
    shown = "".join(capfd.readouterr())
    assert shown
    assert "hush" not in shown
    assert "internal error" not in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_with_a_blank_is_refused_and_not_shown(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "--url=http://user:hush hush@127.0.0.1:1"
    assert exit_status([*arguments(command, tmp_path), url]) == 2
    said = capsys.readouterr().err
    assert "blank" in said
    assert "hush" not in said


@pytest.mark.parametrize("command", ["publish", "backup", "disconnect"])
def test_a_token_comes_through_a_pipe_for_all_urls(command: str, tmp_path: Path) -> None:
    given = arguments(command, tmp_path)
    reader, writer = os.pipe()
    os.write(writer, b"a.b.c\n")
    os.close(writer)
    try:
        given = [one for one in given if not one.startswith("--token-file")]
        given.append(f"--token-file=/dev/fd/{reader}")
        with counted(strangers.page) as (wrong, _), counted(node_for(command)) as (right, asked):
            assert exit_status([*given, "--url", wrong, "--url", right]) == 0
    finally:
        os.close(reader)
    assert len(asked) == 1
