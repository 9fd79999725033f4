"""Promises to operators; that the gauges are those of a hub is shown in test_app.py."""

import structlog.testing
from trio.testing import MockClock

from noti.streams.config import HubConfig
from noti.streams.metrics import HubMetrics
from noti.streams.retained import Retained
from noti.throttled_log import INTERVAL_S


async def test_thousands_of_streams_that_go_are_one_line_now_and_then_and_all_are_counted(
    mock_clock: MockClock,
) -> None:
    metrics = HubMetrics(HubConfig(), Retained(), lambda: 0, lambda: 0.0)
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            metrics.ended_early(10)
            mock_clock.jump(INTERVAL_S / 50)
        metrics.ended_early(10)
    assert [line["streams"] for line in lines] == [10, 500, 500]
