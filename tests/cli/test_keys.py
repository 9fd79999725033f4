"""`noti keys` shows and changes keys on all members, in the form of `serf keys`."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from noti.cli import exit_status
from noti.swim.core.keyring import parse_key
from tests.cli.local_nodes import ScriptedNode, Shell, scripted_node

ONE, TWO = "AAAAAAAAAAAAAAAAAAAAAA==", "YWJjZGVmZ2hhYmNkZWZnaA=="
ASKING = "==> Asking all members for installed keys..."


def answer(node: str, *keys: str, primary: str = "", problem: str = "") -> dict[str, object]:
    done = not problem
    return {"node": node, "done": done, "text": problem, "keys": list(keys), "primary": primary}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with scripted_node(tmp_path) as node:
        node.answers["keys"] = [answer("a"), answer("b")]
        yield node


@pytest.fixture
def shell(node: ScriptedNode, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(node.data_dir, capsys)


def test_new_keys_are_good_and_never_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert exit_status(["keys", "new"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert len(parse_key(first)) == len(parse_key(second)) == 32
    assert first != second


def test_nothing_is_announced_where_no_node_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, lines = Shell(tmp_path / "nowhere", capsys).run("keys", "list")
    assert status == 1
    [line] = lines
    assert "no node runs" in line


def test_list_counts_members_by_key_and_names_what_encrypts(
    node: ScriptedNode, shell: Shell
) -> None:
    node.answers["keys"] = [answer("a", TWO, ONE, primary=ONE), answer("b", ONE)]
    assert shell.run("keys", "list") == (
        0,
        [
            ASKING,
            "==> Keys gathered, listing cluster keys...",
            "",
            f"{ONE}  [2/2]  primary [1/2]",
            f"{TWO}  [1/2]",
        ],
    )
    assert node.asked == [{"request": "keys", "operation": "list", "key": None, "timeout_s": None}]


def test_keys_as_json_are_by_member(node: ScriptedNode, shell: Shell) -> None:
    node.answers["keys"] = [answer("a", TWO, ONE, primary=ONE)]
    status, lines = shell.run("keys", "list", "--json")
    assert (status, json.loads("".join(lines))) == (0, node.answers["keys"])


def test_keys_of_those_who_answered_are_shown_when_others_failed(
    node: ScriptedNode, shell: Shell
) -> None:
    node.answers["keys"] = [
        answer("a", ONE),
        answer("beta", problem="Keyring is empty (encryption not enabled)"),
        {"node": "c", "silent": True},
    ]
    status, lines = shell.run("keys", "list")
    assert status == 1
    assert lines[3:] == [
        f"{ONE}  [1/3]",
        "failed:  beta  Keyring is empty (encryption not enabled)",
        "failed:  c     no answer in time",
        "noti: error: not all members told their keys: 2/3 nodes reported failure or nothing",
    ]


@pytest.mark.parametrize(
    ("operation", "beginning", "success", "failure"),
    [
        (
            "install",
            "==> Installing key on all members...",
            "==> Successfully installed key!",
            "the key is not installed everywhere",
        ),
        (
            "use",
            "==> Changing primary key on all members...",
            "==> Successfully changed primary key!",
            "not all members use the key",
        ),
        (
            "remove",
            "==> Removing key on all members...",
            "==> Successfully removed key!",
            "the key is not removed everywhere",
        ),
    ],
)
def test_change_succeeds_when_all_members_have_made_it(
    node: ScriptedNode, shell: Shell, operation: str, beginning: str, success: str, failure: str
) -> None:
    assert shell.run("keys", operation, ONE, "--timeout", "3") == (0, [beginning, success])
    assert node.asked == [{"request": "keys", "operation": operation, "key": ONE, "timeout_s": 3.0}]
    node.answers["keys"] = [answer("a"), answer("b", problem="too late")]
    status, lines = shell.run("keys", operation, ONE)
    assert status == 1
    assert lines == [
        beginning,
        "failed:  b  too late",
        f"noti: error: {failure}: 1/2 nodes reported failure or nothing",
    ]


def test_key_is_read_from_stdin_so_that_no_list_of_processes_shows_it(
    node: ScriptedNode, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{TWO}\n"))
    assert shell.run("keys", "use", "-")[0] == 0
    assert node.asked[0]["key"] == TWO


@pytest.mark.parametrize("key", ["bad key", "c2hvcnQ=", ""])
def test_what_is_no_key_is_told_without_it_and_asked_of_nobody(
    node: ScriptedNode, shell: Shell, key: str
) -> None:
    status, [line] = shell.run("keys", "install", key)
    assert status == 2
    assert "`noti keys new` makes one" in line
    assert not key or key not in line
    assert not node.asked
