"""Every command that asks somebody, asked wrongly: one line, which names whom, in time."""

import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from noti.cli import exit_status
from tests import promises
from tests.certificates.authority import authority, node
from tests.cli import strangers
from tests.cli.strangers import listening
from tests.cli.test_status import node as http_node
from tests.ports import free_port

TIMEOUT_S = 0.5
RESOLVED_WITHIN_S = 3.0
"""The operating system's answer that there is no such host may take a while on a busy machine."""
ENDS_WITHIN_S = 8.0
"""Of a command with that timeout, on a busy machine."""

EVENT = ["--user-id=7", "--from=a", "--to=b"]

COMMANDS = [
    "status",
    "members",
    "tail",
    "backup",
    "publish-rpc",
    "publish-nats",
    "dead-letter",
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the certificate and key of a node, and its CA."""
    directory = tmp_path_factory.mktemp("certificates")
    ca = authority()
    (directory / "ca.pem").write_bytes(ca.pem)
    (directory / "token").write_text("a.b.c")
    node("n1", ca).write(directory, "n1")
    return directory


def asking(command: str, at: str, certificates: Path, *, tls: bool = False) -> list[str]:
    """Return what asks whoever is at an address."""
    s = "s" if tls else ""
    token = f"--token-file={certificates}/token"
    match command:
        case "status" | "members":
            return [command, "--http", f"http{s}://{at}"]
        case "tail":
            return [command, f"http{s}://{at}"]
        case "backup":
            return [command, f"--url=http{s}://{at}", token, f"{certificates}/backup"]
        case "disconnect":
            return [command, f"--url=http{s}://{at}", token, "--subject=somebody"]
        case "publish-http":
            return ["publish", f"--url=http{s}://{at}", token, "--topic=t", "--data=x"]
        case "dead-letter":
            return [command, "list", f"--nats-url={'tls' if s else 'nats'}://{at}"]
        case "publish-rpc":
            files = {"cert": "n1.pem", "key": "n1.key", "ca": "ca.pem"} if tls else {}
            flags = [f"--tls-{name}={certificates}/{file}" for name, file in files.items()]
            return ["publish", "--rpc", at, "--topic=t", "--data=x", *flags]
        case _:
            return ["publish", f"--nats-url={'tls' if s else 'nats'}://{at}", *EVENT]


STRANGERS = {
    "silent": strangers.silent,
    "garbage": strangers.garbage,
    "hangs-up": strangers.hangs_up,
    "endless": strangers.endless,
    "dripping": strangers.dripping,
    "nats-garbage": strangers.nats_garbage,
}


def fails_in_one_line(
    arguments: list[str], at: str, capsys: pytest.CaptureFixture[str], timeout_s: float = TIMEOUT_S
) -> str:
    """Run a command that has nobody to talk to, and return what it says in the end."""
    began_at = time.monotonic()
    assert exit_status([*arguments, f"--timeout={timeout_s}"]) == 1
    assert time.monotonic() - began_at < ENDS_WITHIN_S
    said = capsys.readouterr().err
    # `tail` tells of each attempt, and then how it ends.
    *before, last = said.splitlines()
    assert all("; again in " in line or "retrying" in line for line in before), said
    assert last.startswith("noti: error: "), said
    assert at in last, f"whom did it ask? {last}"
    assert "internal error" not in said
    assert "Traceback" not in said
    assert "Errno" not in said
    assert "_ssl.c" not in said
    return last


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_nobody_there(
    command: str, tls: bool, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = f"127.0.0.1:{free_port()}"
    fails_in_one_line(asking(command, at, certificates, tls=tls), at, capsys)


@pytest.mark.parametrize("command", [*COMMANDS, "disconnect", "publish-http"])
def test_a_host_that_has_no_address_is_named(
    command: str, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = "nosuch.invalid:8402"
    said = fails_in_one_line(asking(command, at, certificates), at, capsys, RESOLVED_WITHIN_S)
    assert "cannot resolve nosuch.invalid (" in said


@pytest.mark.parametrize("command", ["status", "backup", "disconnect", "publish-http"])
def test_a_page_of_another_server_is_not_taken_for_an_answer(
    command: str, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_node(b"<html>welcome</html>", media_type="text/html") as url:
        at = url.removeprefix("http://")
        said = fails_in_one_line(asking(command, at, certificates), at, capsys)
    assert "welcome" not in said


@promises.COMMANDS_END_IN_TIME
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_somebody_else_there(
    command: str,
    tls: bool,
    stranger: str,
    certificates: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening(STRANGERS[stranger]) as port:
        at = f"127.0.0.1:{port}"
        last = fails_in_one_line(asking(command, at, certificates, tls=tls), at, capsys)
    if stranger == "silent":
        assert "no answer" in last
        assert f"within {TIMEOUT_S:g} s" in last


@pytest.mark.parametrize("stranger", STRANGERS)
def test_somebody_else_where_events_are_published_over_http(
    stranger: str, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without TLS: httpx forgets to close the socket of a handshake that is cancelled.
    with listening(STRANGERS[stranger]) as port:
        at = f"127.0.0.1:{port}"
        fails_in_one_line(asking("publish-http", at, certificates), at, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_plain_text_to_whom_takes_tls_only(
    command: str, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "n1.pem", certificates / "n1.key")
    with http_node(b"{}", tls=context) as url:
        at = url.removeprefix("https://")
        fails_in_one_line(asking(command, at, certificates), at, capsys)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
        b"\xff\xfe",
        b"x" * (4 * 1024 * 1024 + 1),
    ],
    ids=["deep", "long-number", "no-text", "huge"],
)
@pytest.mark.parametrize("command", ["status", "members"])
def test_document_that_is_no_report(
    command: str, body: bytes, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_node(body) as url:
        fails_in_one_line(asking(command, url.removeprefix("http://"), certificates), url, capsys)


def test_report_that_is_nested_deeply_is_shown_or_rejected(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for depth in (100, 500, 900, 980):
        with http_node(b'{"a":' * depth + b"1" + b"}" * depth) as url:
            assert exit_status(["status", "--http", url]) in (0, 1)
        assert "internal error" not in capsys.readouterr().err


def test_report_can_not_write_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    body = b'{"ro\\u001ble": "a\\u001b[31m\\ud800b", "members": [{"na\\nme": "x\\u009by"}]}'
    with http_node(body) as url:
        assert exit_status(["status", "--http", url]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "a\\x1b[31m\\xd800b" in out
    assert "x\\x9by" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--topic=*", "--data=x"],
        ["--topic=a\x00", "--data=x"],
    ],
)
def test_text_that_no_node_takes_is_rejected_before_anybody_is_asked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["publish", "--rpc=127.0.0.1:1", *arguments]) == 1
    said = capsys.readouterr().err
    assert "topic" in said
    assert said.count("\n") == 1


def test_lines_that_nobody_answers_are_named_with_what_was_acknowledged() -> None:
    with listening(strangers.silent) as port:
        command = [sys.executable, "-m", "noti", "publish", "--rpc", f"127.0.0.1:{port}"]
        ended = subprocess.run(
            [*command, "--topic=t", "--timeout=1"],
            input="one\ntwo\n",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stdout == "published 0 events, all of the first 0 lines\n"
    assert f"127.0.0.1:{port}: no answer within 1 s" in ended.stderr
