"""Promises to operators; that the gauges are those of a hub is shown in test_app.py."""

import structlog.testing

from noti.streams.config import HubConfig
from noti.streams.metrics import TOLD_EVERY_S, Measures
from noti.streams.retained import Retained


def test_thousands_of_streams_that_go_are_one_line_now_and_then_and_all_are_counted() -> None:
    measures = Measures(HubConfig(), Retained(), lambda: 0.0)
    with structlog.testing.capture_logs() as lines:
        for turn in range(100):
            measures.let_go(10, 5.0 + turn * TOLD_EVERY_S / 50)
        measures.let_go(10, 5.0 + 10 * TOLD_EVERY_S)
    assert [line["streams"] for line in lines] == [10, 500, 500]
