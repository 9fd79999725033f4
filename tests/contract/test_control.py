"""What every way in for a machine's operator promises: the socket and the simulator's."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from noti.errors import DecommissionRejected
from noti.membership.control import ControlSocket
from noti.membership.control_client import ask_to_leave
from noti.membership.ports import Control, Tell
from tests.simulation.machine import MemoryControl

Leave = Callable[[float], Awaitable[None]]
Serving = Callable[[Leave], AbstractAsyncContextManager[Leave]]
"""Serves as a node does, and yields how an operator asks that node to leave."""


@pytest.fixture(params=["socket", "memory"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Serving:
    memory = MemoryControl()
    control: Control = ControlSocket(tmp_path) if request.param == "socket" else memory

    async def ask(within_s: float) -> None:
        if control is memory:
            assert memory.leave is not None
            await memory.leave(within_s)
        else:
            await trio.to_thread.run_sync(partial(ask_to_leave, tmp_path, within_s))

    @asynccontextmanager
    async def serve(leave: Leave) -> AsyncIterator[Leave]:
        async def carry_out(request: object, _tell: Tell) -> None:
            assert isinstance(request, dict)
            await leave(request["leave_within_s"])

        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, carry_out)
            yield ask
            nursery.cancel_scope.cancel()

    return serve


async def test_request_reaches_the_node_with_its_seconds(serving: Serving) -> None:
    asked: list[float] = []

    async def leave(within_s: float) -> None:
        asked.append(within_s)

    async with serving(leave) as ask:
        await ask(7.5)
        await ask(8.0)
    assert asked == [7.5, 8.0]


async def test_reason_of_the_node_reaches_the_operator(serving: Serving) -> None:
    async def leave(within_s: float) -> None:
        raise DecommissionRejected("this node is the last voter")

    async with serving(leave) as ask:
        with pytest.raises(DecommissionRejected, match="the last voter"):
            await ask(5.0)


async def test_cancelled_it_can_be_served_again_by_the_next_process(serving: Serving) -> None:
    asked: list[str] = []

    def of(process: str) -> Leave:
        async def leave(within_s: float) -> None:
            asked.append(process)

        return leave

    for process in ("first", "second"):
        async with serving(of(process)) as ask:
            await ask(5.0)
    assert asked == ["first", "second"]
