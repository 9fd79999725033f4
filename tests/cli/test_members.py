"""`noti members` shows what a real node knows, in the form that `serf members` has."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.cli import exit_status
from tests.cli.local_nodes import Shell, scripted_node, two_nodes
from tests.interop.processes import NodeProcess, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as running:
        yield running


@pytest.fixture
def shell(nodes: list[NodeProcess], capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(nodes[0].data_dir, capsys)
    shell.until_members_are(node1="alive", node2="alive")
    return shell


def test_a_line_holds_name_address_status_and_tags(shell: Shell, nodes: list[NodeProcess]) -> None:
    status, lines = shell.run("members")
    assert status == 0
    rows = [re.split(" {2,}", line) for line in lines]
    assert [row[:3] for row in rows] == [
        [node.name, written(node.gossip), "alive"] for node in nodes
    ]
    for node, row in zip(nodes, rows, strict=True):
        shown = {f"http={written(node.http)}", f"ops={written(node.ops)}"}
        assert shown <= set(row[3].split(","))


def test_columns_begin_below_each_other(shell: Shell) -> None:
    _, lines = shell.run("members")
    assert len({line.index(" alive ") for line in lines}) == 1


def test_details_are_the_versions_of_serfs_protocol(shell: Shell) -> None:
    _, lines = shell.run("members", "--detailed")
    for line in lines:
        assert line.endswith("  Protocol Version: 5  Available Protocol Range: [2, 5]")


def test_json_has_every_key_of_serfs(shell: Shell, nodes: list[NodeProcess]) -> None:
    [member] = members_in_json(shell, "--name", "node2")
    assert member.pop("tags")["http"] == written(nodes[1].http)
    assert member.pop("incarnation") > 0
    assert member == {
        "name": "node2",
        "addr": written(nodes[1].gossip),
        "port": nodes[1].gossip[1],
        "status": "alive",
        "protocol": {"min": 2, "max": 5, "version": 5},
        "state": "alive",
    }


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["--status", "alive"], ["node1", "node2"]),
        (["--status", "aliv"], []),
        (["--status", "failed|left"], []),
        (["--name", "node."], ["node1", "node2"]),
        (["--name", "de2"], []),
        (["--tag", "expect=1", "--name", ".*1"], ["node1"]),
        (["--tag", "expect=1", "--tag", "expect=2"], []),
        (["--tag", "none=.+"], []),
    ],
)
def test_filters_must_match_the_whole_and_all_of_them(
    shell: Shell, filters: list[str], names: list[str]
) -> None:
    assert [each["name"] for each in members_in_json(shell, *filters)] == names


def test_nobody_is_no_line(shell: Shell) -> None:
    assert shell.run("members", "--name", "nobody") == (0, [])


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--tag", "nonsense"], "'nonsense' is not KEY=VALUE"),
        (["--tag", "a=("], "'(' is no regular expression"),
        (["--status", "("], "'(' is no regular expression"),
        (["--format", "xml"], "'xml' is not one of"),
        (["--http", "http://127.0.0.1:1", "--detailed"], "only --json, --tls-ca and"),
    ],
)
def test_wrong_flag_is_told_in_one_line(
    flags: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["members", *flags]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert problem in line


def test_without_a_node_the_error_names_the_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["members", "--data-dir", str(tmp_path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"no node runs with the data directory {tmp_path}" in line


def test_members_over_http_are_those_of_the_report(
    nodes: list[NodeProcess], shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["members", "--http", f"http://{written(nodes[0].ops)}"]) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title.strip() == "members"
    assert [row.split()[0] for row in rows] == ["node1", "node2"]


def test_member_that_is_killed_has_failed_and_one_that_is_stopped_has_left(
    shell: Shell, nodes: list[NodeProcess]
) -> None:
    for number, status in ((signal.SIGKILL, "failed"), (signal.SIGTERM, "left")):
        os.kill(nodes[1].pid, number)
        shell.until_members_are(node1="alive", node2=status)
        trio.run(nodes[1].wait)
        nodes[1].start()
        shell.until_members_are(node1="alive", node2="alive")


def test_member_is_forgotten_where_the_command_or_its_group_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_node(tmp_path) as node:
        node.answers["forget"] = []
        for before, after in (
            ([], ["--data-dir", str(tmp_path)]),
            (["--data-dir", str(tmp_path)], []),
        ):
            assert exit_status(["members", *before, "forget", "node2", *after]) == 0
    assert node.asked == [{"request": "forget", "name": "node2"}] * 2
    assert capsys.readouterr().out == ""


def members_in_json(shell: Shell, *filters: str) -> list[dict[str, Any]]:
    status, lines = shell.run("members", "--format", "json", *filters)
    assert status == 0
    members: list[dict[str, Any]] = json.loads("\n".join(lines))["members"]
    return members
