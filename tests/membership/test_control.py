"""The socket by which the operator of a machine talks to its node."""

import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from noti.errors import DecommissionRejected, LocalError, Unavailable
from noti.membership.control import SOCKET_NAME, ControlSocket, ask_to_leave


@asynccontextmanager
async def serving(
    directory: Path, leave: Callable[[float], Awaitable[None]]
) -> AsyncIterator[Path]:
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlSocket(directory).serve, leave)
        yield directory
        nursery.cancel_scope.cancel()


async def ask(directory: Path, within_s: float = 5.0) -> None:
    await trio.to_thread.run_sync(partial(ask_to_leave, directory, within_s))


async def agree(_within_s: float) -> None:
    await trio.lowlevel.checkpoint()


async def test_request_reaches_the_node_with_its_time_and_is_answered(tmp_path: Path) -> None:
    asked: list[float] = []

    async def leave(within_s: float) -> None:
        asked.append(within_s)

    async with serving(tmp_path, leave):
        await ask(tmp_path, 7.5)
    assert asked == [7.5]


async def test_reason_of_the_node_reaches_who_asked(tmp_path: Path) -> None:
    async def leave(_within_s: float) -> None:
        raise DecommissionRejected("this node is the last voter")

    async with serving(tmp_path, leave):
        with pytest.raises(DecommissionRejected, match="the last voter"):
            await ask(tmp_path)


async def test_only_the_nodes_own_user_may_ask(tmp_path: Path) -> None:
    async with serving(tmp_path, agree):
        mode = (tmp_path / SOCKET_NAME).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


async def test_nothing_is_left_when_the_node_stops_and_a_killed_life_is_cleared_away(
    tmp_path: Path,
) -> None:
    left_behind = socket.socket(socket.AF_UNIX)
    with left_behind:
        directory = os.open(tmp_path, os.O_RDONLY)
        left_behind.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        os.close(directory)
    async with serving(tmp_path, agree):
        await ask(tmp_path)
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_path_may_be_longer_than_the_address_of_a_socket(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    async with serving(directory, agree):
        await ask(directory)


async def test_without_a_node_the_error_names_where_none_runs(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(LocalError, match=r"no node runs with the data directory .*--data-dir"):
            await ask(directory)


async def test_node_that_stops_meanwhile_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def leave(_within_s: float) -> None:
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    refused: list[Unavailable] = []

    async def wait_for_answer() -> None:
        with pytest.raises(Unavailable, match="stopped before") as caught:
            await ask(tmp_path)
        refused.append(caught.value)

    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        await nursery.start(ControlSocket(tmp_path).serve, leave)
        outer.start_soon(wait_for_answer)
    assert refused


async def test_node_that_answers_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.membership.control.ANSWER_GRACE_S", 0.01)

    async def leave(_within_s: float) -> None:
        await trio.sleep_forever()

    async with serving(tmp_path, leave):
        with pytest.raises(Unavailable, match="no answer within"):
            await ask(tmp_path, 0.1)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\n",
        b"leave\n",
        b"[]\n",
        b'{"leave_within_s": -1}\n',
        b'{"leave_within_s": true}\n',
        b'{"leave_within_s": 1e99}\n',
        b'{"leave_within_s": "5"}\n',
        b"x" * 5000,
        b"\xff\xff\n",
    ],
)
async def test_nonsense_is_refused_and_the_next_one_is_served(
    tmp_path: Path, nonsense: bytes
) -> None:
    async with serving(tmp_path, agree):
        stream = await trio.open_unix_socket(tmp_path / SOCKET_NAME)
        async with stream:
            await stream.send_all(nonsense)
            await stream.send_eof()
            with trio.fail_after(5):
                assert b"not a request" in await stream.receive_some(1000)
        await ask(tmp_path)


async def test_directory_that_takes_no_socket_costs_the_command_and_not_the_node(
    tmp_path: Path,
) -> None:
    in_the_way = tmp_path / SOCKET_NAME
    in_the_way.mkdir()
    async with serving(tmp_path, agree):
        with pytest.raises(LocalError, match="no node runs"):
            await ask(tmp_path)
