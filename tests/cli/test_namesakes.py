"""Commands print and do what their namesakes of `serf` do, in one cluster with a real agent.

Two nodes and an agent share a key. Where the two differ on purpose, the test says so. What asks all
members is repeated until all answer: in the `local` profile a broadcast is sent so rarely that one
in a hundred misses somebody.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.cli.children import Child
from noti.swim.core.keyring import format_key
from tests.cli.local_nodes import APPEAR_S_MAX, Shell, two_nodes
from tests.interop.processes import NodeProcess, written
from tests.interop.serf.agents import HOST, serf_binary
from tests.ports import free_port

pytestmark = [
    pytest.mark.interop,
    pytest.mark.serf,
    pytest.mark.slow,
    pytest.mark.timeout(120),
]

KEY, NEW_KEY = format_key(bytes(32)), format_key(bytes(range(32)))
ALIVE = {"agent1": "alive", "node1": "alive", "node2": "alive"}

Output = tuple[int, list[str]]


@dataclass
class Cluster:
    """Two nodes and an agent."""

    nodes: list[NodeProcess]
    serf_path: Path
    rpc: str
    agent: Child
    events: Path
    """What the agent's handler of the event `deploy` was given."""

    def serf(self, command: str, *arguments: str) -> Output:
        """Return the exit status of a `serf` command, and what it printed."""
        called = [str(self.serf_path), command, f"-rpc-addr={self.rpc}", *arguments]
        ended = subprocess.run(called, capture_output=True, text=True, timeout=30, check=False)
        return ended.returncode, (ended.stdout + ended.stderr).splitlines()

    def serf_members(self) -> dict[str, dict[str, Any]]:
        """Return the agent's members, by name."""
        status, lines = self.serf("members", "-format=json")
        listed = json.loads("\n".join(lines))["members"] if status == 0 else []
        return {each["name"]: each for each in listed}

    def serf_statuses(self) -> dict[str, str]:
        """Return the statuses of the agent's members."""
        return {name: each["status"] for name, each in self.serf_members().items()}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    key_file = directory / "keys"
    key_file.write_text(f"{KEY}\n")
    key_file.chmod(0o600)
    with two_nodes(directory, "--gossip-key-file", str(key_file)) as nodes:
        rpc, events = f"{HOST}:{free_port()}", directory / "events"
        command = [str(serf_binary()), "agent", "-node=agent1", f"-rpc-addr={rpc}"]
        command += [f"-bind={HOST}:{free_port()}", "-profile=local", f"-encrypt={KEY}"]
        command += [f"-retry-join={written(nodes[0].gossip)}", "-retry-interval=1s"]
        command += ["-tag=role=web", "-event-handler=query:uptime=echo up"]
        command += [f"-event-handler=user:deploy=cat >> {events}; echo >> {events}"]
        agent = Child("agent1", command, directory / "agent1.log")
        agent.start()
        try:
            yield Cluster(nodes, serf_binary(), rpc, agent, events)
        finally:
            trio.run(agent.stop, 0)


@pytest.fixture
def shell(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(cluster.nodes[0].data_dir, capsys)
    shell.until_members_are(**ALIVE)
    until(lambda: cluster.serf_statuses() == ALIVE)
    return shell


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    ends_at = time.monotonic() + APPEAR_S_MAX
    while not condition():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.05)


def in_rows(lines: Sequence[str]) -> set[tuple[str, ...]]:
    """Return a table without its order, nor that of the tags in it."""
    cells = [re.split(" {2,}", line) for line in lines]
    return {tuple(",".join(sorted(cell.split(","))) for cell in row) for row in cells}


def same_lines(one: Output, other: Output) -> bool:
    """Whether two commands ended alike and printed the same lines, in whatever order."""
    return (one[0], sorted(one[1])) == (other[0], sorted(other[1]))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ([], []),
        (["-detailed"], ["--detailed"]),
        (["-status=alive", "-tag", "role=w.*"], ["--status", "alive", "--tag", "role=w.*"]),
        (["-name=node."], ["--name", "node."]),
    ],
)
def test_members_are_the_same_lines(
    cluster: Cluster, shell: Shell, theirs: list[str], ours: list[str]
) -> None:
    def both() -> list[tuple[int, set[tuple[str, ...]]]]:
        outputs = cluster.serf("members", *theirs), shell.run("members", *ours)
        return [(status, in_rows(lines)) for status, lines in outputs]

    until(lambda: len({str(sorted(rows)) for _, rows in both()}) == 1)  # news of tags is on its way
    (status, lines), (our_status, our_lines) = both()
    assert (our_status, our_lines) == (status, lines)
    assert lines


def test_members_in_json_are_the_same_but_for_what_only_we_know(
    cluster: Cluster, shell: Shell
) -> None:
    _, lines = shell.run("members", "--format", "json")
    ours = {each["name"]: each for each in json.loads("\n".join(lines))["members"]}
    for member in ours.values():
        del member["state"], member["incarnation"]
    assert ours == cluster.serf_members()


def test_event_is_told_in_the_same_words(cluster: Cluster, shell: Shell) -> None:
    for theirs, ours in (("-coalesce=false", "--no-coalesce"), ("-coalesce=true", "--coalesce")):
        told = cluster.serf("event", theirs, "other", "payload")
        assert shell.run("event", ours, "other", "payload") == told


def test_event_reaches_the_handler_of_the_agent(cluster: Cluster, shell: Shell) -> None:
    def reaches_it() -> bool:
        assert shell.run("event", "--no-coalesce", "deploy", "ours")[0] == 0
        time.sleep(0.2)  # or the next one is sent at once
        return "ours" in cluster.events.read_text().splitlines()

    cluster.events.touch()
    until(reaches_it)


def test_event_that_is_too_long_is_rejected_by_both(cluster: Cluster, shell: Shell) -> None:
    for status, lines in (
        cluster.serf("event", "deploy", "x" * 600),
        shell.run("event", "deploy", "x" * 600),
    ):
        assert status == 1
        assert " 512" in lines[-1]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ([], []),
        (["-no-ack"], ["--no-ack"]),
        (["-node=node1"], ["--node", "node1"]),
        (["-tag", "role=we"], ["--tag", "role=we"]),
        (["-node=nobody"], ["--node", "nobody"]),
        (["-relay-factor=1"], ["--relay-factor", "1"]),
    ],
)
def test_query_is_acked_and_answered_by_the_same(
    cluster: Cluster, shell: Shell, theirs: list[str], ours: list[str]
) -> None:
    until(
        lambda: same_lines(
            shell.run("query", *ours, "uptime"), cluster.serf("query", *theirs, "uptime")
        )
    )


def test_query_that_is_too_long_is_rejected_by_both(cluster: Cluster, shell: Shell) -> None:
    for status, lines in (
        cluster.serf("query", "uptime", "x" * 1100),
        shell.run("query", "uptime", "x" * 1100),
    ):
        assert status == 1
        assert " 1024" in lines[-1]


def test_reachability_is_success_on_both_sides(cluster: Cluster, shell: Shell) -> None:
    until(lambda: shell.run("reachability") == cluster.serf("reachability"))
    until_it_succeeds(shell.run, "reachability")


def test_reachability_names_who_stands_still(cluster: Cluster, shell: Shell) -> None:
    os.kill(cluster.nodes[1].pid, signal.SIGSTOP)
    try:
        status, lines = shell.run("reachability", "--timeout", "0.5")
        assert status == 1
        missing = lines.index("Received less acks than live nodes! Missing acks from:")
        assert "\tnode2" in lines[missing + 1 :]
    finally:
        os.kill(cluster.nodes[1].pid, signal.SIGCONT)


def test_round_trips_are_estimated_alike(cluster: Cluster, shell: Shell) -> None:
    for one, other in (("agent1", "node1"), ("node2", "node1"), ("node2", "agent1")):
        form = re.compile(rf"Estimated {one} <-> {other} rtt: [0-9]+\.[0-9]{{3}} ms")
        for command in (cluster.serf, shell.run):
            estimated = until_it_succeeds(command, "rtt", one, other)
            assert form.fullmatch(estimated[0])
    assert shell.run("rtt", "nobody")[0] == cluster.serf("rtt", "nobody")[0] == 1


def until_it_succeeds(command: Callable[..., Output], *arguments: str) -> list[str]:
    """Run a command until it exits with status 0; return what it printed then."""
    until(lambda: command(*arguments)[0] == 0)
    return command(*arguments)[1]


@pytest.mark.parametrize(
    ("by_us", "old", "new"),
    [(True, KEY, NEW_KEY), (False, NEW_KEY, KEY)],
    ids=["by noti", "by serf"],
)
def test_keys_are_rotated_from_either_side_and_nobody_is_lost(
    cluster: Cluster, shell: Shell, by_us: bool, old: str, new: str
) -> None:
    def installed_are(*keys: str) -> None:
        everywhere = {(key, "[3/3]") for key in keys}
        until(lambda: keys_in(shell.run("keys", "list")) == everywhere)
        until(lambda: keys_in(cluster.serf("keys", "-list")) == everywhere)

    def change(operation: str, key: str) -> None:
        if by_us:
            until_it_succeeds(shell.run, "keys", operation, key)
        else:
            until_it_succeeds(cluster.serf, "keys", f"-{operation}={key}")

    change("install", new)
    installed_are(old, new)
    change("use", new)
    change("remove", old)
    installed_are(new)
    until_it_succeeds(shell.run, "reachability")
    shell.until_members_are(**ALIVE)


def keys_in(listed: Output) -> set[tuple[str, ...]]:
    """Return the keys in a list, and how many members have each."""
    return {row[:2] for row in in_rows(listed[1]) if len(row) > 1}


def test_key_that_encrypts_is_kept_by_all_and_each_says_so(cluster: Cluster, shell: Shell) -> None:
    def all_say_so(removed: Output) -> bool:
        status, printed = removed
        failed = [line.split()[1] for line in printed if line.startswith("failed:")]
        assert status == 1
        return sorted(failed) == sorted(ALIVE) and "3/3 nodes reported failure" in printed[-1]

    until(lambda: all_say_so(shell.run("keys", "remove", KEY)))
    until(lambda: all_say_so(cluster.serf("keys", f"-remove={KEY}")))


def test_failed_agent_leaves_by_force_and_is_forgotten_by_all_nodes(
    cluster: Cluster, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["force-leave", "--prune"], ["members", "forget"]):
        trio.run(cluster.agent.stop, 0)
        for status in ("failed", "left"):
            shell.until_members_are(**ALIVE | {"agent1": status})
            assert shell.run("force-leave", "agent1") == (0, [])
        assert shell.run(*command, "agent1") == (0, [])
        for node in cluster.nodes:
            Shell(node.data_dir, capsys).until_members_are(node1="alive", node2="alive")
        cluster.agent.start()
        shell.until_members_are(**ALIVE)


def test_node_of_the_cluster_that_failed_is_forgotten_by_agents_only(
    cluster: Cluster, shell: Shell
) -> None:
    trio.run(cluster.nodes[1].kill)
    until(lambda: cluster.serf_statuses()["node2"] == "failed")
    shell.until_members_are(**ALIVE | {"node2": "failed"})
    assert shell.run("force-leave", "node2") == (0, [])
    until(lambda: cluster.serf_statuses()["node2"] == "left")
    status, [line] = shell.run("members", "forget", "node2")
    assert status == 1
    assert "still a voter or a learner" in line
    until(lambda: "node2" not in cluster.serf_statuses())
    shell.until_members_are(**ALIVE | {"node2": "left"})
    cluster.nodes[1].start()
    shell.until_members_are(**ALIVE)
    until(lambda: cluster.serf_statuses() == ALIVE)


def test_member_that_is_alive_refutes_that_it_left(cluster: Cluster, shell: Shell) -> None:
    for name in ("agent1", "node2"):
        assert shell.run("force-leave", name) == (0, [])
    until_it_succeeds(shell.run, "reachability")
    shell.until_members_are(**ALIVE)
    until(lambda: cluster.serf_statuses() == ALIVE)


def test_force_leave_of_nobody_is_an_error_here_and_silence_there(
    cluster: Cluster, shell: Shell
) -> None:
    assert cluster.serf("force-leave", "nobody") == (0, [])
    status, [line] = shell.run("force-leave", "nobody")
    assert status == 1
    assert "nobody" in line
