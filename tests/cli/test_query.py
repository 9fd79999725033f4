"""`noti query` shows answers as they come, in the form of `serf query`."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.local_nodes import ScriptedNode, Shell, scripted_node


def ack(node: str) -> dict[str, object]:
    return {"node": node, "is_ack": True, "payload": ""}


def response(node: str, payload: bytes) -> dict[str, object]:
    return {"node": node, "is_ack": False, "payload": base64.b64encode(payload).decode()}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with scripted_node(tmp_path) as node:
        node.answers["query"] = [ack("alpha"), response("beta", b"up\n"), ack("beta")]
        yield node


@pytest.fixture
def shell(node: ScriptedNode, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(node.data_dir, capsys)


def test_acks_and_responses_are_shown_and_counted(shell: Shell) -> None:
    assert shell.run("query", "uptime") == (
        0,
        [
            "Query 'uptime' dispatched",
            "Ack from 'alpha'",
            "Response from 'beta': up",
            "Ack from 'beta'",
            "Total Acks: 2",
            "Total Responses: 1",
        ],
    )


def test_json_has_the_keys_of_serfs(shell: Shell) -> None:
    status, lines = shell.run("query", "--format", "json", "uptime")
    assert status == 0
    assert json.loads("\n".join(lines)) == {
        "Acks": ["alpha", "beta"],
        "Responses": {"beta": "up\n"},
    }


def test_question_holds_what_the_flags_say(node: ScriptedNode, shell: Shell) -> None:
    flags = ["--node", "a", "--node", "b", "--tag", "role=web", "--timeout", "0.5"]
    shell.run("query", "uptime", "now", *flags, "--relay-factor", "2", "--no-ack")
    shell.run("query", "uptime")
    assert node.asked == [
        {
            "request": "query",
            "name": "uptime",
            "payload": "bm93",
            "nodes": ["a", "b"],
            "tags": {"role": "web"},
            "timeout_s": 0.5,
            "wants_acks": False,
            "relay_factor": 2,
        },
        {
            "request": "query",
            "name": "uptime",
            "payload": "",
            "nodes": [],
            "tags": {},
            "timeout_s": None,
            "wants_acks": True,
            "relay_factor": 0,
        },
    ]


def test_without_acks_none_are_counted(node: ScriptedNode, shell: Shell) -> None:
    node.answers["query"] = [response("beta", b"up")]
    assert shell.run("query", "--no-ack", "uptime") == (
        0,
        ["Query 'uptime' dispatched", "Response from 'beta': up", "Total Responses: 1"],
    )


def test_nothing_that_a_member_says_is_obeyed_by_the_terminal(
    node: ScriptedNode, shell: Shell
) -> None:
    node.answers["query"] = [response("be\rta", b"two\nlines \x1b[31m\xff")]
    _, lines = shell.run("query", "--no-ack", "uptime")
    assert lines[1:3] == ["Response from 'be\\x0dta': two", "lines \\x1b[31m\ufffd"]


def test_nobody_who_answers_is_no_error(node: ScriptedNode, shell: Shell) -> None:
    node.answers["query"] = []
    assert shell.run("query", "uptime") == (
        0,
        ["Query 'uptime' dispatched", "Total Acks: 0", "Total Responses: 0"],
    )


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--relay-factor", "256"], "256 is not in the range"),
        (["--tag", "nonsense"], "'nonsense' is not KEY=VALUE"),
        (["--timeout", "0"], "0.0 is not in the range"),
    ],
)
def test_wrong_flag_is_told_in_one_line(shell: Shell, flags: list[str], problem: str) -> None:
    status, [line] = shell.run("query", "uptime", *flags)
    assert status == 2
    assert problem in line


@pytest.mark.parametrize("flags", [["--node", "\udcff"], ["--tag", "role=\udcff"]])
def test_flag_that_is_not_utf_8_is_rejected_before_a_node_is_asked(
    node: ScriptedNode, shell: Shell, flags: list[str]
) -> None:
    status, lines = shell.run("query", "uptime", *flags)
    assert status == 2
    assert "it is not UTF-8" in lines[-1]
    assert node.asked == []


def test_query_too_long_for_the_socket_is_said_to_be_that(node: ScriptedNode, shell: Shell) -> None:
    status, lines = shell.run("query", "uptime", "x" * 20_000)
    assert status == 1
    [line] = lines
    assert "make it shorter" in line
    assert node.asked == []


def test_query_that_the_node_rejects_is_not_announced(node: ScriptedNode, shell: Shell) -> None:
    node.answers.clear()
    assert shell.run("query", "uptime") == (1, ["noti: error: no query here"])
