"""`noti rtt` prints an estimated round trip in the form of `serf rtt`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.local_nodes import ScriptedNode, Shell, scripted_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with scripted_node(tmp_path) as node:
        node.answers["rtt"] = [{"nodes": ["beta", "alpha"], "rtt_s": 0.0003728}]
        yield node


@pytest.fixture
def shell(node: ScriptedNode, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(node.data_dir, capsys)


def test_estimate_is_printed_in_milliseconds(node: ScriptedNode, shell: Shell) -> None:
    for names in (["beta"], ["beta", "alpha"]):
        assert shell.run("rtt", *names) == (0, ["Estimated beta <-> alpha rtt: 0.373 ms"])
        assert node.asked.pop() == {"request": "rtt", "nodes": names}


def test_estimate_as_json_is_in_seconds(node: ScriptedNode, shell: Shell) -> None:
    status, lines = shell.run("rtt", "beta", "--json")
    assert (status, json.loads("".join(lines))) == (0, node.answers["rtt"])


def test_estimate_of_nothing_is_an_error(node: ScriptedNode, shell: Shell) -> None:
    node.answers["rtt"] = [{"nodes": ["beta", "alpha"], "rtt_s": None}]
    status, [line] = shell.run("rtt", "beta")
    assert status == 1
    assert line == "noti: error: no coordinate of beta or alpha is known yet"
