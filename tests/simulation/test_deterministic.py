"""The switches that make Trio repeatable."""

import trio

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
