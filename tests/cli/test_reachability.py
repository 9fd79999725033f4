"""`noti reachability` judges as `serf reachability` does: every live member must ack, once."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from noti.cli.reachability import ADVICE
from tests.cli.local_nodes import ScriptedNode, Shell, scripted_node
from tests.cli.test_query import ack

BEGINNING = ["Total members: 4, live members: 2", "Starting reachability test..."]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    with scripted_node(tmp_path) as node:
        statuses = {"a": "alive", "b": "alive", "c": "failed", "d": "leaving"}
        node.answers["members"] = [
            {"name": name, "status": status} for name, status in statuses.items()
        ]
        yield node


@pytest.fixture
def shell(node: ScriptedNode, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(node.data_dir, capsys)


def test_acks_of_all_live_members_are_success(node: ScriptedNode, shell: Shell) -> None:
    node.answers["query"] = [ack("a"), ack("b")]
    assert shell.run("reachability") == (
        0,
        [*BEGINNING, "Successfully contacted all live nodes"],
    )
    [_, query] = node.asked
    assert (query["name"], query["wants_acks"]) == ("_serf_ping", True)


@pytest.mark.parametrize(
    ("acks", "finding"),
    [
        ("a", ["Received less acks than live nodes! Missing acks from:", "\tb"]),
        ("abc", ["Acks from non-live nodes:", "\tc"]),
        ("aba", ["Several acks from one name, which more than one member must have:", "\ta"]),
        (
            "ac",
            [
                "Acks from non-live nodes:",
                "\tc",
                "Received less acks than live nodes! Missing acks from:",
                "\tb",
            ],
        ),
    ],
)
def test_ack_that_lacks_or_should_not_be_is_named_with_advice(
    node: ScriptedNode, shell: Shell, acks: Sequence[str], finding: list[str]
) -> None:
    node.answers["query"] = [ack(name) for name in acks]
    assert shell.run("reachability") == (1, [*BEGINNING, *finding, *ADVICE.splitlines()])


def test_json_says_what_is_wrong_and_the_status_whether_anything_is(
    node: ScriptedNode, shell: Shell
) -> None:
    node.answers["query"] = [ack("a"), ack("c")]
    status, lines = shell.run("reachability", "--json")
    assert (status, json.loads("".join(lines))) == (
        1,
        {"members": 4, "live": ["a", "b"], "twice": [], "not_live": ["c"], "missing": ["b"]},
    )


def test_details_are_every_ack_and_the_times(node: ScriptedNode, shell: Shell) -> None:
    node.answers["query"] = [ack("a"), ack("b")]
    status, lines = shell.run("reachability", "--verbose")
    assert status == 0
    assert lines[2:4] == ["\tAck from 'a'", "\tAck from 'b'"]
    assert lines[4].startswith("Query time: 0.")
