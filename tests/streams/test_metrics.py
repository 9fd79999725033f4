"""Promises to operators; that the gauges are those of a hub is shown in test_app.py too."""

import structlog.testing
from prometheus_client import REGISTRY
from trio.testing import MockClock

from noti.history.selectors import ALL_TOPICS
from noti.streams.config import HubConfig
from noti.streams.feed import Audience, View
from noti.streams.metrics import HubMetrics
from noti.streams.open_streams import Reader
from noti.streams.retained import Retained
from noti.throttled_log import INTERVAL_S
from tests.http.stage import hub, running

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))


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


async def test_gauges_are_those_of_the_hub_that_runs() -> None:
    """A stream that another hub of this process has left open is none of this one's."""
    other, there = hub(), hub()
    other.join(Reader(ALL, 0, ""))
    async with running(there):
        assert REGISTRY.get_sample_value("noti_streams_clients") == 0.0
        there.join(Reader(ALL, 0, ""))
        assert REGISTRY.get_sample_value("noti_streams_clients") == 1.0
