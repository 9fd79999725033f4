"""The socket by which the operator of a machine talks to its node: the side of commands."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.errors import DecommissionRejected, LocalError, Unavailable
from noti.membership.control import ControlSocket
from noti.membership.control_client import ControlClient, ask_to_leave, live_voters
from noti.membership.control_protocol import SOCKET_NAME
from noti.membership.ports import Tell
from tests.membership.test_control import repeat, serving


async def elsewhere(blocking: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(blocking)


async def leave(directory: Path, within_s: float = 5.0) -> None:
    await elsewhere(partial(ask_to_leave, directory, within_s))


async def test_order_to_leave_is_what_older_nodes_understand(tmp_path: Path) -> None:
    asked = []

    async def note(request: object, _tell: Tell) -> None:
        asked.append(request)

    async with serving(tmp_path, note):
        await leave(tmp_path, 7.5)
    assert asked == [{"leave_within_s": 7.5}]


async def test_reason_of_the_node_reaches_who_asked(tmp_path: Path) -> None:
    async def reject(_request: object, _tell: Tell) -> None:
        raise DecommissionRejected("this node is the last voter")

    async with serving(tmp_path, reject):
        with pytest.raises(DecommissionRejected, match="the last voter"):
            await leave(tmp_path)


async def test_one_connection_asks_again_and_again(tmp_path: Path) -> None:
    async def count(request: object, tell: Tell) -> None:
        assert isinstance(request, dict)
        for number in range(request["to"]):
            await tell({"number": number})

    def ask() -> list[list[int]]:
        with ControlClient(tmp_path) as node:
            return [[one["number"] for one in node.ask({"to": to}, 5.0)] for to in (3, 0, 1)]

    async with serving(tmp_path, count):
        assert await elsewhere(ask) == [[0, 1, 2], [], [0]]


async def test_voters_that_live_are_named(tmp_path: Path) -> None:
    async def name(request: object, tell: Tell) -> None:
        assert request == {"request": "voters"}
        await tell({"name": "noti-0"})
        await tell({"name": "noti-2"})

    async with serving(tmp_path, name):
        assert await elsewhere(partial(live_voters, tmp_path, 5.0)) == ["noti-0", "noti-2"]


async def test_path_may_be_longer_than_the_address_of_a_socket(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    async with serving(directory, repeat):
        await leave(directory)


async def test_without_a_node_the_error_names_where_none_runs(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(LocalError, match=r"no node runs with the data directory .*--data-dir"):
            await leave(directory)


async def test_node_that_stops_meanwhile_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def stop(_request: object, _tell: Tell) -> None:
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    rejected: list[Unavailable] = []

    async def wait_for_answer() -> None:
        with pytest.raises(Unavailable, match="stopped before") as caught:
            await leave(tmp_path)
        rejected.append(caught.value)

    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        await nursery.start(ControlSocket(tmp_path).serve, stop)
        outer.start_soon(wait_for_answer)
    assert rejected


async def test_node_that_answers_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.membership.control_client.ANSWER_GRACE_S", 0.01)

    async def say_nothing(_request: object, _tell: Tell) -> None:
        await trio.sleep_forever()

    async with serving(tmp_path, say_nothing):
        with pytest.raises(Unavailable, match="no answer within"):
            await leave(tmp_path, 0.1)


@pytest.mark.parametrize("nonsense", [b"hello\n", b"[]\n", b'{"answer": 1}\n', b"x" * 20_000])
async def test_what_is_no_node_is_told_in_one_line(tmp_path: Path, nonsense: bytes) -> None:
    async def chatter(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(nonsense)

    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(tmp_path / SOCKET_NAME))
    listening.listen()
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(listening)
        await nursery.start(partial(trio.serve_listeners, chatter, [listener]))
        with pytest.raises(Unavailable, match="no node of this version"):
            await leave(tmp_path)
        nursery.cancel_scope.cancel()
