"""`noti event` has the node send a user event, and says so in the words of `serf event`."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.local_nodes import ScriptedNode, Shell, scripted_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with scripted_node(tmp_path) as node:
        node.answers["event"] = []
        yield node


@pytest.fixture
def shell(node: ScriptedNode, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(node.data_dir, capsys)


def test_event_is_sent_as_serf_would_send_it(node: ScriptedNode, shell: Shell) -> None:
    assert shell.run("event", "deploy", "abc") == (
        0,
        ["Event 'deploy' dispatched! Coalescing enabled: true"],
    )
    assert shell.run("event", "--no-coalesce", "deploy") == (
        0,
        ["Event 'deploy' dispatched! Coalescing enabled: false"],
    )
    assert node.asked == [
        {"request": "event", "name": "deploy", "payload": "YWJj", "coalesce": True},
        {"request": "event", "name": "deploy", "payload": "", "coalesce": False},
    ]


def test_payload_may_be_any_bytes(node: ScriptedNode, shell: Shell) -> None:
    assert shell.run("event", "deploy", os.fsdecode(b"\xff\x80"))[0] == 0
    assert base64.b64decode(node.asked[0]["payload"]) == b"\xff\x80"


def test_reason_of_the_node_is_told_in_one_line(node: ScriptedNode, shell: Shell) -> None:
    del node.answers["event"]
    assert shell.run("event", "deploy") == (1, ["noti: error: no event here"])
