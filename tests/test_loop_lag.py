"""Promises of the sampler of the event loop's lag."""

import trio
import trio.testing
from prometheus_client import REGISTRY

from noti import loop_lag


def lag() -> tuple[float, float]:
    values = [
        REGISTRY.get_sample_value(f"noti_loop_lag_seconds_{name}") for name in ("count", "sum")
    ]
    return values[0] or 0.0, values[1] or 0.0


async def test_every_sample_reports_how_late_the_loop_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(loop_lag.watch)
        count, total = lag()
        await trio.sleep(10 * loop_lag.SAMPLE_EVERY_S + 0.01)
        assert lag() == (count + 10, total), "in virtual time nothing is late"
        autojump_clock.jump(loop_lag.SAMPLE_EVERY_S + 3)
        await trio.testing.wait_all_tasks_blocked()
        assert lag()[0] == count + 11
        assert 2.5 < lag()[1] - total < 3.5
        nursery.cancel_scope.cancel()
