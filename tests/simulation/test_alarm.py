"""What the simulator waits with, beside Trio's own way, which it stands in for."""

import math
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.simulation.alarm import Alarm, sleep_until
from tests.simulation.deterministic import run_deterministically

Sleep = Callable[[float], Awaitable[None]]


def order_of_waking(seed: int, sleep: Sleep) -> list[tuple[int, float]]:
    woken: list[tuple[int, float]] = []

    async def worker(number: int, rng: random.Random) -> None:
        for _ in range(20):
            with trio.move_on_after(rng.choice([0.5, 2.0, math.inf])):
                await sleep(trio.current_time() + rng.choice([-1.0, 0.0, 0.5, 1.0]))
            woken.append((number, trio.current_time()))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(worker, number, random.Random(number))

    run_deterministically(seed, main)
    return woken


@pytest.mark.parametrize("seed", range(5))
def test_alarm_wakes_in_the_same_order_as_a_scope(seed: int) -> None:
    assert order_of_waking(seed, sleep_until) == order_of_waking(seed, trio.sleep_until)


async def test_alarm_that_is_moved_wakes_then(autojump_clock: trio.testing.MockClock) -> None:
    alarm = Alarm()
    woken: list[float] = []

    async def wait() -> None:
        await alarm.wait_until(math.inf)
        woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        assert alarm.is_set
        alarm.move(trio.current_time() + 3)
        alarm.move(trio.current_time() + 2)
    assert woken == [3.0]
    assert not alarm.is_set


async def test_alarm_can_be_cancelled_and_set_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    alarm = Alarm()
    with trio.move_on_after(1) as scope:
        await alarm.wait_until(5)
    assert scope.cancelled_caught
    assert not alarm.is_set
    await alarm.wait_until(2)
    assert trio.current_time() == 2.0
