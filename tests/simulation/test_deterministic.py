"""The switches that make Trio repeatable."""

import trio
import trio.testing

from tests.simulation.clocks import MachineClock
from tests.simulation.deterministic import run_deterministically


def trace_of(seed: int) -> list[tuple[int, float]]:
    trace: list[tuple[int, float]] = []

    async def worker(number: int) -> None:
        for _ in range(5):
            await trio.sleep(1)
            trace.append((number, trio.current_time()))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(worker, number)

    run_deterministically(seed, main)
    return trace


def test_seed_decides_the_order_of_tasks() -> None:
    assert trace_of(5) == trace_of(5)
    assert any(trace_of(5) != trace_of(seed) for seed in range(6, 12))


async def test_process_that_was_frozen_wakes_for_every_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """However many timers it has set meanwhile: a task waited for ever after it was thawed."""
    clock = MachineClock()
    with trio.fail_after(60), clock.scope_until(clock.now() + 1.0):
        clock.freeze()
        await trio.sleep(2)
        for _ in range(100):
            clock.scope_until(clock.now() + 1.0)
        clock.thaw()
        await trio.sleep_forever()
    assert trio.current_time() < 60
