"""What every clock promises: the one that nodes run with and those of simulated machines."""

import math
from collections.abc import Callable

import pytest
import trio
import trio.testing

from noti.ports import Clock
from noti.trio_clock import TrioClock
from tests.simulation.clocks import MachineClock

ROUNDING_S = 1e-6


def fast() -> Clock:
    return MachineClock(rate=1.01, offset_s=5000.0)


def slow() -> Clock:
    return MachineClock(rate=0.99, offset_s=-5.0)


@pytest.fixture(params=[TrioClock, MachineClock, fast, slow])
def clock(request: pytest.FixtureRequest) -> Clock:
    make: Callable[[], Clock] = request.param
    return make()


async def test_time_goes_on_and_sleeps_end_at_their_deadline_not_before(
    clock: Clock, autojump_clock: trio.testing.MockClock
) -> None:
    deadline = clock.now() + 10.0
    await clock.sleep_until(deadline)
    assert deadline - ROUNDING_S <= clock.now() < deadline + 0.01


async def test_sleep_until_what_has_passed_is_a_checkpoint(
    clock: Clock, autojump_clock: trio.testing.MockClock
) -> None:
    before = clock.now()
    with trio.testing.assert_checkpoints():
        await clock.sleep_until(before - 1.0)
    assert clock.now() < before + 0.01


async def test_sleep_can_be_cancelled(clock: Clock, autojump_clock: trio.testing.MockClock) -> None:
    before = clock.now()
    with trio.move_on_after(1.0) as limit:
        await clock.sleep_until(math.inf)
    assert limit.cancelled_caught
    assert clock.now() < before + 2.0


async def test_scope_is_cancelled_at_its_deadline_not_before(
    clock: Clock, autojump_clock: trio.testing.MockClock
) -> None:
    deadline = clock.now() + 10.0
    with clock.scope_until(deadline) as scope:
        await clock.sleep_until(deadline - 0.1)
        assert not scope.cancel_called
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert deadline - ROUNDING_S <= clock.now() < deadline + 0.01


async def test_scope_without_an_end_is_never_cancelled(
    clock: Clock, autojump_clock: trio.testing.MockClock
) -> None:
    with clock.scope_until(math.inf) as scope:
        await clock.sleep_until(clock.now() + 100.0)
    assert not scope.cancel_called


async def test_wall_time_is_in_milliseconds_of_this_century(
    clock: Clock, autojump_clock: trio.testing.MockClock
) -> None:
    assert 1_000_000_000_000 < clock.wall_ms() < 4_000_000_000_000
