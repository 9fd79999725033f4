"""An optional part that fails: told once, counted, run again; never the end of anything else."""

import random
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from noti.optional import FAILURES, PAUSE_FIRST_S, PAUSE_MAX_S, contained, keep_going
from noti.trio_clock import TrioClock


class Part:
    """Fails as it is told, and otherwise runs until cancelled."""

    def __init__(self, *failures: BaseException | None) -> None:
        self._failures = list(failures)
        self.starts: list[float] = []
        self.told: list[str] = []

    async def run(self) -> None:
        self.starts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if not self._failures:
            await trio.sleep_forever()
        failure = self._failures.pop(0)
        if failure is not None:
            raise failure


def keep(part: Callable[[], Awaitable[object]], told: list[str]) -> Callable[[], Awaitable[None]]:
    return partial(keep_going, "it", part, TrioClock(), random.Random(1), told.append)


def counted() -> float:
    return float(FAILURES.labels("it")._value.get())


async def test_part_is_run_again_after_a_pause_that_grows_and_its_failures_are_counted(
    autojump_clock: MockClock,
) -> None:
    part, before = Part(*[ValueError("no")] * 12), counted()
    with trio.move_on_after(600):
        await keep(part.run, part.told)()
    assert part.told == ["ValueError: no"] * 12
    assert counted() - before == 12
    pauses = [late - early for early, late in zip(part.starts, part.starts[1:], strict=False)]
    assert pauses[0] <= PAUSE_FIRST_S
    assert PAUSE_MAX_S / 2 <= pauses[-1] <= PAUSE_MAX_S


async def test_traceback_is_logged_once_for_failures_that_are_the_same(
    autojump_clock: MockClock,
) -> None:
    part = Part(ValueError("a"), ValueError("a"), KeyError("b"), KeyError("b"), ValueError("a"))
    with structlog.testing.capture_logs() as logs, trio.move_on_after(600):
        await keep(part.run, part.told)()
    errors = [str(line["exc_info"]) for line in logs if line["log_level"] == "error"]
    assert errors == ["a", "'b'", "a"]


async def test_errors_in_nested_groups_are_logged_one_by_one(autojump_clock: MockClock) -> None:
    group = ExceptionGroup("outer", [ValueError("a"), ExceptionGroup("inner", [KeyError(1)])])
    part = Part(group)
    with structlog.testing.capture_logs() as logs, trio.move_on_after(600):
        await keep(part.run, part.told)()
    assert part.told == ["ValueError: a; KeyError: 1"]
    errors = [type(line["exc_info"]) for line in logs if line["log_level"] == "error"]
    assert errors == [ValueError, KeyError]


async def test_part_that_ends_by_itself_is_run_again(autojump_clock: MockClock) -> None:
    part = Part(None)
    with trio.move_on_after(600):
        await keep(part.run, part.told)()
    assert part.told == ["it ended by itself"]
    assert len(part.starts) == 2


async def test_error_beside_a_cancellation_neither_hides_it_nor_goes_on(
    autojump_clock: MockClock,
) -> None:
    """The nursery of the part raises both in one group, as one task fails while it is cancelled."""

    async def clumsy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise AssertionError("must be connected first")

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clumsy)
            await trio.sleep_forever()

    with structlog.testing.capture_logs() as logs, trio.move_on_after(1) as scope:
        await keep(both, [])()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)
    assert [str(line.get("exc_info")) for line in logs] == ["must be connected first"]


async def test_what_is_no_exception_passes(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(KeyboardInterrupt, allow_unwrapped=True):
        await keep(Part(KeyboardInterrupt()).run, [])()


def test_error_of_one_of_many_is_contained_counted_and_logged_once_in_a_while() -> None:
    before = counted()
    with structlog.testing.capture_logs() as logs:
        for error in (KeyError(1), KeyError(1), ExceptionGroup("", [ValueError("x")])):
            with contained("it"):
                raise error
    assert counted() - before == 3
    assert [line["error"] for line in logs] == ["KeyError(1)", "ValueError('x')"]
    assert all(line["exc_info"] for line in logs)


async def test_cancellation_beside_a_contained_error_passes(autojump_clock: MockClock) -> None:
    async def clumsy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise AssertionError("must be connected first")

    with trio.move_on_after(1) as scope:
        with contained("it"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(clumsy)
                await trio.sleep_forever()
        pytest.fail("the cancellation was swallowed")
    assert scope.cancelled_caught
