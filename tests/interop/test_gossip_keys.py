"""Keys of gossip on real processes: a cluster without any gets them while it runs."""

import re
import signal
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from noti.swim.core.keyring import format_key
from noti.swim.key_file import SAVED_NAME
from tests import promises
from tests.interop.cluster import SETTLE_S_MAX, until
from tests.interop.processes import (
    NodeProcess,
    destroyed_in_the_end,
    run_to_end,
    why_it_ended,
    written,
)

pytestmark = [pytest.mark.interop, pytest.mark.slow]

OLD, NEW = (format_key(bytes([number]) * 32) for number in (1, 2))
UNKNOWN_KEY = "encrypted under none of our keys"
NAMES = ["node1", "node2", "node3"]


def three(directory: Path) -> tuple[list[NodeProcess], list[str]]:
    """Return nodes that are not started, and what each is to be started with."""
    nodes = [NodeProcess(name, directory) for name in NAMES]
    join = [part for node in nodes for part in ("--join", written(node.gossip))]
    return nodes, [*join, "--bootstrap-expect", "3"]


def start(nodes: Iterable[NodeProcess], arguments: Sequence[str]) -> None:
    for node in nodes:
        node.start(*arguments)


async def until_all_are_up(nodes: Sequence[NodeProcess]) -> None:
    """Wait until each is ready, and sees all of them alive."""
    for node in nodes:
        await node.until_up()
        with trio.fail_after(SETTLE_S_MAX):
            while await alive_at(node) != [other.name for other in nodes]:  # noqa: ASYNC110
                await trio.sleep(0.05)


async def alive_at(node: NodeProcess) -> list[str]:
    status = await node.status()
    assert status is not None
    return sorted(one["name"] for one in status["members"] if one["state"] == "alive")


def lost(nodes: Iterable[NodeProcess]) -> list[str]:
    """Return what the nodes said of members that they lost, or did not understand."""
    signs = re.compile(rf".*(?:member (?:suspect|dead)|gossip rejected|{UNKNOWN_KEY}).*")
    return [line for node in nodes for line in signs.findall(node.log_text())]


def have_taken(nodes: Iterable[NodeProcess], changes: int) -> bool:
    """Whether these have read their files anew so often."""
    return all(node.log_text().count("new keys of gossip in use") >= changes for node in nodes)


async def roll(nodes: Sequence[NodeProcess], arguments: Sequence[str]) -> None:
    """Give the nodes other settings, one after the other."""
    for node in nodes:
        node.signal(signal.SIGTERM)
        assert await node.wait() == 0
        node.start(*arguments)
        await until_all_are_up(nodes)
        assert lost(nodes) == []


@promises.GOSSIP_HAS_KEYS
async def test_cluster_without_keys_gets_them_while_it_runs_and_no_node_is_ever_lost(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "gossip.keys"
    keys.write_text(OLD)
    nodes, plain = three(tmp_path)
    steps = [
        [*plain, "--gossip-key-file", str(keys), "--gossip-encryption", each]
        for each in ("understood", "sent", "required")
    ]
    async with destroyed_in_the_end(nodes):
        start(nodes, plain)
        await until_all_are_up(nodes)
        for arguments in steps:
            await roll(nodes, arguments)


@promises.GOSSIP_HAS_KEYS
async def test_keys_in_the_file_are_changed_while_all_nodes_run(tmp_path: Path) -> None:
    """As a secret of Kubernetes changes: at each node when it likes."""
    nodes, join = three(tmp_path)
    files = {node.name: tmp_path / f"{node.name}.keys" for node in nodes}
    async with destroyed_in_the_end(nodes):
        for node in nodes:
            files[node.name].write_text(OLD)
            node.start(*join, "--gossip-key-file", str(files[node.name]))
        await until_all_are_up(nodes)
        for number, content in enumerate((f"{OLD}\n{NEW}", f"{NEW}\n{OLD}", NEW), 1):
            for some in (nodes[:1], nodes[1:]):
                for node in some:
                    files[node.name].write_text(content)
                await until(partial(have_taken, some, number), f"{content} is in use")
        await until_all_are_up(nodes)
        assert lost(nodes) == []


@promises.GOSSIP_HAS_KEYS
async def test_node_with_another_key_does_not_become_a_member(tmp_path: Path) -> None:
    keys = tmp_path / "gossip.keys"
    keys.write_text(OLD)
    nodes, join = three(tmp_path)
    async with destroyed_in_the_end(nodes):
        start(nodes, [*join, "--gossip-key-file", str(keys)])
        await until_all_are_up(nodes)
        other = NodeProcess("other", tmp_path)
        async with destroyed_in_the_end([other]):
            strange = tmp_path / "strange.keys"
            strange.write_text(NEW)
            other.start(*join, "--gossip-key-file", str(strange))
            everybody = [other, *nodes]
            await until(
                lambda: all(UNKNOWN_KEY in node.log_text() for node in everybody),
                "all have met",
            )
            for node in nodes:
                assert await alive_at(node) == NAMES
            assert await alive_at(other) == ["other"]


@promises.GOSSIP_HAS_KEYS
async def test_node_that_others_reach_says_in_one_line_that_it_needs_a_key(tmp_path: Path) -> None:
    node = NodeProcess("single", tmp_path)
    command = node.command("--gossip-addr", "0.0.0.0:0", "--advertise-host", "127.0.0.1")
    ended = await trio.to_thread.run_sync(partial(run_to_end, command))
    assert ended.returncode != 0
    line = why_it_ended(ended.stderr)
    assert line.startswith("setting gossip_addr (from flag --gossip-addr)")
    assert "--gossip-key-file" in line
    assert "--gossip-insecure" in line


@promises.GOSSIP_HAS_KEYS
async def test_node_that_comes_back_has_the_keys_that_commands_changed_meanwhile(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "gossip.keys"
    keys.write_text(OLD)
    nodes, join = three(tmp_path)

    async def change(what: str, key: str) -> None:
        command = [*nodes[0].command()[:3], "keys", what, key]
        command += ["--data-dir", str(nodes[0].data_dir)]
        ended = await trio.to_thread.run_sync(partial(run_to_end, command))
        assert ended.returncode == 0, ended.stderr

    async with destroyed_in_the_end(nodes):
        start(nodes, [*join, "--gossip-key-file", str(keys)])
        await until_all_are_up(nodes)
        await change("install", NEW)
        await change("use", NEW)
        await change("remove", OLD)
        await roll(nodes, [*join, "--gossip-key-file", str(keys)])
        for node in nodes:
            assert (node.data_dir / SAVED_NAME).stat().st_mode & 0o777 == 0o600
            assert not {OLD, NEW} & set(re.findall(r'[^"\s]+', node.log_text()))
