"""How every command ends: its exit status, and one line when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from noti.cli import commands, exit_status
from noti.errors import ConfigInvalid, StorageLocked


def ends(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = exit_status(arguments)
    return status, capsys.readouterr().err


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setitem(commands.commands, "fail", fail)


def test_an_unknown_flag_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = ends(capsys, "run", "--http-adr", "x")
    assert status == 2
    assert said.startswith("noti: error: No such option '--http-adr'")
    assert "--http-addr" in said
    assert "noti run --help" in said
    assert said.count("\n") == 1


def test_an_unknown_command_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = ends(capsys, "rum")
    assert status == 2
    assert said.startswith("noti: error: No such command 'rum'")
    assert said.count("\n") == 1


def test_a_wrong_setting_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = ends(capsys, "run", "--http-addr", "x", "--log-format=human")
    assert status == 2
    assert said.startswith("noti: error: setting http_addr (from flag --http-addr): 'x'")
    assert said.count("\n") == 1


def test_help_and_version_exit_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--help",), ("run", "--help"), ("--version",)):
        assert ends(capsys, *arguments) == (0, "")


def test_our_errors_are_one_line_and_exit_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, StorageLocked("the data directory is locked\nby process 7"))
    said = "noti: error: the data directory is locked by process 7\n"
    assert ends(capsys, "fail") == (1, said)


def test_our_errors_are_found_inside_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ExceptionGroup("outer", [ExceptionGroup("inner", [ConfigInvalid("wrong")])])
    failing(monkeypatch, error)
    assert ends(capsys, "fail") == (2, "noti: error: wrong\n")


def test_a_bug_is_reported_as_a_bug_even_beside_our_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ExceptionGroup("", [StorageLocked("locked"), KeyError("x")]))
    status, said = ends(capsys, "fail")
    assert status == 1
    assert "noti: error: internal error, please report it: KeyError: 'x'\n" in said


def test_a_python_without_assertions_is_rejected() -> None:
    process = subprocess.run(
        [sys.executable, "-O", "-m", "noti", "--version"], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert process.stderr.startswith("noti: error: assertions guard the data")


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in commands.list_commands(click.Context(commands)):
        assert exit_status([name, "--help"]) == 0
        assert f"Usage: noti {name} [OPTIONS]" in capsys.readouterr().out


def test_command_is_loaded_without_the_others() -> None:
    """All of them take longer to load than a node, and a node is to come back soon."""
    program = (
        "import sys; from noti.cli import exit_status; exit_status(['status', '--help']);"
        "sys.exit(str(sorted({'grpclib', 'nats', 'trio', 'cryptography'} & set(sys.modules))))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert loaded.stdout.startswith("Usage: noti status")
    # Certificates for https, and Trio, on which it asks; not what talks to NATS or over gRPC.
    assert loaded.stderr == "['cryptography', 'trio']\n"


def test_list_of_commands_is_shown_without_loading_one() -> None:
    program = (
        "import sys; from noti.cli import exit_status; exit_status(['--help']);"
        "sys.exit(str([name for name in sys.modules if name.startswith('noti.cli.')]))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "  dead-letter     Look at" in shown.stdout
    assert shown.stderr == "[]\n"


def test_node_loads_no_library_that_only_its_settings_may_ask_for() -> None:
    """Each of them would cost every start of every node some of a tenth of a second."""
    program = (
        "import sys; from noti.cli import run; from noti import node;"
        "asked_for = {'nats', 'nkeys', 'httpx', 'lightkube', 'rich', 'trustme', 'yaml'};"
        "sys.exit(str(sorted(asked_for & set(sys.modules))))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert loaded.stderr == "[]\n"


def test_commands_that_draw_have_rich_all_the_same() -> None:
    program = "from noti.cli import tail; print(tail.Console.__module__)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert loaded.stdout == "rich.console\n"


def test_full_disk_behind_stdout_is_one_line() -> None:
    program = "from noti.cli import main; import sys; sys.argv = ['noti', 'keys', 'new']; main()"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.stderr.splitlines()[0] == (
        "noti: error: cannot write: No space left on device; make room"
    )
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- <&-"])
def test_a_closed_stdout_is_no_success(closed: str) -> None:
    command = f"exec {sys.executable} -m noti keys new {closed}"
    ended = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1


def test_a_command_works_whose_stderr_and_stdin_are_closed() -> None:
    command = f"exec {sys.executable} -m noti keys new 2>&- <&-"
    ended = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, len(ended.stdout)) == (0, 45)


def test_the_last_line_among_json_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = ends(capsys, "run", "--http-addr", "x", "--log-format=json")
    [line] = said.splitlines()
    told = json.loads(line)
    assert (status, told["exit_status"], told["level"]) == (2, 2, "critical")
    assert told["event"].startswith("setting http_addr (from flag --http-addr): 'x'")


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["trace", "\udcff\udcfe"], "argument 2"),
        (["certs", "init", "--name", "\udcff"], "argument 4"),
        (["token", "--publish", "\udcff", "--key-file", "key"], "argument 3"),
        (["publish", "--topic=t", "--data=secret\udcff"], "the value of --data"),
        (["\udcff"], "argument 1"),
    ],
)
def test_argument_that_is_no_text_is_told_by_its_place_in_one_line(
    arguments: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = ends(capsys, *arguments)
    assert status == 2
    assert said == f"noti: error: {where} is not UTF-8; write it as text (see noti --help)\n"


@pytest.mark.parametrize(
    "command", ["publish --topic=t --data=x", "tail", "status", "members", "trace a"]
)
def test_login_in_a_url_is_never_shown(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    urls = ["--url", "http://user:hush@127.0.0.1:1", "--url", "http://user:hush@127.0.0.1:2"]
    for given in (urls[:2], urls):
        exit_status([*command.split(), "--timeout", "0.5", *given])
        captured = capsys.readouterr()
        assert "hush" not in captured.err
