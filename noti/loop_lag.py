"""Measures how late the event loop is.

All of a node runs in one loop: while one task computes, no heartbeat is sent and no browser served.
The lag is what everything else's delays have in common, and tells a busy node from a slow network
or disk.
"""

from typing import Final

import trio
from prometheus_client import Histogram

SAMPLE_EVERY_S: Final = 0.25
"""Four wake-ups a second cost nothing, and sixty samples stand behind each scrape of 15 s."""

LAG: Final = Histogram(
    "noti_loop_lag_seconds",
    "How late a timer of the event loop was, four times a second.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


async def watch(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Take samples until cancelled."""
    task_status.started()
    while True:
        due = trio.current_time() + SAMPLE_EVERY_S
        await trio.sleep_until(due)
        LAG.observe(trio.current_time() - due)
