"""The asyncio loop inside the Trio tree."""

import asyncio

import pytest
import trio
from structlog.testing import capture_logs

from noti.asyncio_loop import AsyncioLoop
from noti.errors import LocalError, Unavailable


async def test_call_returns_results_and_raises_errors(nursery: trio.Nursery) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)

    async def divide(a: int, b: int) -> float:
        await asyncio.sleep(0)
        return a / b

    assert await asyncio_loop.call(divide, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        await asyncio_loop.call(divide, 1, 0)
    nursery.cancel_scope.cancel()


async def test_call_works_from_tasks_that_know_no_loop(nursery: trio.Nursery) -> None:
    asyncio_loop = AsyncioLoop()
    results: list[bool] = []

    async def stranger(go: trio.Event) -> None:
        await go.wait()
        loop = await asyncio_loop.call(current_loop)
        results.append(loop is not None)

    async def current_loop() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    go = trio.Event()
    async with trio.open_nursery() as strangers:
        strangers.start_soon(stranger, go)  # its context was copied before the loop existed
        await nursery.start(asyncio_loop.run)
        go.set()
    assert results == [True]
    nursery.cancel_scope.cancel()


async def test_trio_cancellation_reaches_asyncio_code(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)
    seen: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with trio.move_on_after(1) as scope:
        await asyncio_loop.call(endless)
    assert scope.cancelled_caught
    assert seen == ["cancelled"]
    nursery.cancel_scope.cancel()


async def test_end_of_the_loop_ends_calls(nursery: trio.Nursery) -> None:
    asyncio_loop = AsyncioLoop()
    outcomes: list[str] = []

    async def caller() -> None:
        try:
            await asyncio_loop.call(asyncio.Event().wait)
        except Unavailable:
            outcomes.append("unavailable")

    async with trio.open_nursery() as inner:
        await inner.start(asyncio_loop.run)
        nursery.start_soon(caller)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert outcomes == ["unavailable"]


async def test_call_without_a_loop_is_refused() -> None:
    with pytest.raises(LocalError):
        await AsyncioLoop().call(asyncio.sleep, 0)


async def test_cancelled_caller_starts_nothing(nursery: trio.Nursery) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)
    started: list[bool] = []

    async def note() -> None:
        started.append(True)

    with trio.CancelScope() as scope:
        scope.cancel()
        await asyncio_loop.call(note)
    assert started == []
    nursery.cancel_scope.cancel()


async def test_stray_asyncio_errors_are_logged_once_and_do_not_end_the_loop(
    nursery: trio.Nursery,
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)

    async def leave_a_broken_callback() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with capture_logs() as logs:
        for _ in range(3):
            await asyncio_loop.call(leave_a_broken_callback)
            await trio.testing.wait_all_tasks_blocked()
    assert [line["error"] for line in logs] == ["ZeroDivisionError: division by zero"]
    await asyncio_loop.call(asyncio.sleep, 0)
    nursery.cancel_scope.cancel()


async def test_cancelled_loop_serves_the_cleanup_of_those_who_hold_it(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    asyncio_loop = AsyncioLoop()
    cleaned: list[float] = []

    async def user(task_status: trio.TaskStatus[None]) -> None:
        with asyncio_loop.held():
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    cleaned.append(await asyncio_loop.call(asyncio.sleep, 0.5, 7.0))

    async with trio.open_nursery() as outer:
        await outer.start(asyncio_loop.run)
        async with trio.open_nursery() as inner:
            await inner.start(user)
            outer.cancel_scope.cancel()  # loop and user at the same moment
    assert cleaned == [7.0]


async def test_loop_does_not_wait_for_ever_for_its_holders(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asyncio_loop = AsyncioLoop()
    with asyncio_loop.held(), trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            nursery.cancel_scope.cancel()
    with pytest.raises(LocalError):
        await asyncio_loop.call(asyncio.sleep, 0)


async def test_swallowed_cancellation_is_repeated_until_the_call_has_ended(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    with trio.move_on_after(1) as scope:
        await asyncio_loop.call(stubborn)
    assert (scope.cancelled_caught, swallowed) == (True, 3)
    nursery.cancel_scope.cancel()


async def test_cancelled_call_that_fails_on_its_way_out_ends_as_a_cancellation(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)

    async def clumsy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise AssertionError("must be connected first")

    with trio.move_on_after(1) as scope:
        await asyncio_loop.call(clumsy)
    assert scope.cancelled_caught
    nursery.cancel_scope.cancel()
