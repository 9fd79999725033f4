"""Promises to operators; that the gauges are those of a hub is shown in test_app.py."""

import structlog.testing
from trio.testing import MockClock

from noti.streams.config import HubConfig
from noti.streams.metrics import Measures
from noti.streams.retained import Retained
from noti.throttled_log import INTERVAL_S


async def test_thousands_of_streams_that_go_are_one_line_now_and_then_and_all_are_counted(
    mock_clock: MockClock,
) -> None:
    measures = Measures(HubConfig(), Retained(), lambda: 0.0)
    with structlog.testing.capture_logs() as lines:
        for _ in range(100):
            measures.let_go(10)
            mock_clock.jump(INTERVAL_S / 50)
        measures.let_go(10)
    assert [line["streams"] for line in lines] == [10, 500, 500]
