"""The socket by which the operator of a machine talks to its node: the node's side."""

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from noti.errors import LocalError
from noti.membership.control import ControlSocket
from noti.membership.control_protocol import SOCKET_NAME
from noti.membership.ports import CarryOut, Tell


@asynccontextmanager
async def serving(directory: Path, carry_out: CarryOut) -> AsyncIterator[Path]:
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlSocket(directory).serve, carry_out)
        yield directory
        nursery.cancel_scope.cancel()


async def repeat(request: object, tell: Tell) -> None:
    """Answer with the request."""
    await tell({"request": request})


async def exchange(directory: Path, *sent: bytes) -> list[object]:
    """Send this and no more, and return all answers, decoded."""
    answers = b""
    stream = await trio.open_unix_socket(directory / SOCKET_NAME)
    async with stream:
        with trio.fail_after(5):
            for piece in sent:
                await stream.send_all(piece)
            await stream.send_eof()
            async for received in stream:
                answers += received
    return [json.loads(line) for line in answers.splitlines()]


async def test_several_requests_of_a_connection_are_answered_in_order(tmp_path: Path) -> None:
    async def count(request: object, tell: Tell) -> None:
        assert isinstance(request, int)
        for number in range(request):
            await tell({"number": number})

    async with serving(tmp_path, count):
        assert await exchange(tmp_path, b"2\n0", b"\n1\n") == [
            {"answer": {"number": 0}},
            {"answer": {"number": 1}},
            {},
            {},
            {"answer": {"number": 0}},
            {},
        ]


async def test_request_that_fails_costs_only_itself(tmp_path: Path) -> None:
    async def fail(request: object, tell: Tell) -> None:
        await tell({"begun": True})
        raise LocalError(f"no {request}")

    async with serving(tmp_path, fail):
        assert await exchange(tmp_path, b'"beer"\n"wine"\n') == [
            {"answer": {"begun": True}},
            {"error": "no beer"},
            {"answer": {"begun": True}},
            {"error": "no wine"},
        ]


async def test_answers_come_as_soon_as_they_are_known(tmp_path: Path) -> None:
    goes_on = trio.Event()

    async def answer_twice(_request: object, tell: Tell) -> None:
        await tell({"number": 1})
        await goes_on.wait()
        await tell({"number": 2})

    async with serving(tmp_path, answer_twice):
        stream = await trio.open_unix_socket(tmp_path / SOCKET_NAME)
        async with stream:
            await stream.send_all(b"{}\n")
            with trio.fail_after(5):
                assert await stream.receive_some(1000) == b'{"answer": {"number": 1}}\n'
                goes_on.set()
                assert b'"number": 2' in await stream.receive_some(1000)


async def test_request_of_a_client_that_has_gone_ends_at_its_next_answer(tmp_path: Path) -> None:
    ended = trio.Event()

    async def answer_forever(_request: object, tell: Tell) -> None:
        try:
            while True:
                await tell({})
        finally:
            ended.set()

    async with serving(tmp_path, answer_forever):
        stream = await trio.open_unix_socket(tmp_path / SOCKET_NAME)
        async with stream:
            await stream.send_all(b"{}\n")
            await stream.receive_some(1000)
        with trio.fail_after(5):
            await ended.wait()


async def test_request_of_a_client_that_reads_nothing_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.membership.control.REQUEST_WITHIN_S", 0.05)
    ended = trio.Event()

    async def answer_forever(_request: object, tell: Tell) -> None:
        try:
            while True:
                await tell({"long": "x" * 1000})
        finally:
            ended.set()

    async with serving(tmp_path, answer_forever):
        stream = await trio.open_unix_socket(tmp_path / SOCKET_NAME)
        async with stream:
            await stream.send_all(b"{}\n")
            with trio.fail_after(5):
                await ended.wait()


async def test_client_that_asks_for_nothing_is_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.membership.control.REQUEST_WITHIN_S", 0.01)
    async with serving(tmp_path, repeat):
        stream = await trio.open_unix_socket(tmp_path / SOCKET_NAME)
        async with stream:
            with trio.fail_after(5):
                assert b"not a request" in await stream.receive_some(1000)
                assert await stream.receive_some(1000) == b""


async def test_only_the_nodes_own_user_may_ask(tmp_path: Path) -> None:
    async with serving(tmp_path, repeat):
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
    async with serving(tmp_path, repeat):
        assert await exchange(tmp_path, b"1\n") == [{"answer": {"request": 1}}, {}]
    assert not (tmp_path / SOCKET_NAME).exists()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\n",
        b"leave\n",
        b"[[[\n",
        b"[" * 16_000 + b"\n",
        b"x" * 20_000,
        b"\xff\xff\n",
        b'"\\udcff"\n',
        b"{}",
    ],
)
async def test_nonsense_is_rejected_and_the_next_client_is_served(
    tmp_path: Path, nonsense: bytes
) -> None:
    async with serving(tmp_path, repeat):
        [answer] = await exchange(tmp_path, nonsense)
        assert answer == {"error": "not a request that this version knows"}
        assert await exchange(tmp_path, b"1\n") == [{"answer": {"request": 1}}, {}]


async def test_directory_that_takes_no_socket_costs_the_commands_and_not_the_node(
    tmp_path: Path,
) -> None:
    in_the_way = tmp_path / SOCKET_NAME
    in_the_way.mkdir()
    async with serving(tmp_path, repeat):
        assert in_the_way.is_dir()
