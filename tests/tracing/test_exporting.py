"""Spans leave in batches, and a collector in trouble costs spans only."""

import logging
import threading
from collections.abc import Sequence

import pytest
import structlog.testing
import trio

from noti.tracing import exporting
from noti.tracing.exporting import BATCH_SPANS_MAX, SPANS_MAX, SpanExporting


class Collector:
    """Takes batches, in a thread."""

    def __init__(self) -> None:
        self.works = True
        self.batches: list[list[object]] = []
        self.open = threading.Event()
        self.open.set()
        self.was_shut_down = False

    def export(self, spans: Sequence[object]) -> bool:
        self.open.wait(10)
        if not self.works:
            for attempt in ("refused", "refused again", "given up"):
                logging.getLogger("opentelemetry.exporter").error("%s", attempt)
            return False
        self.batches.append(list(spans))
        return True

    def shut_down(self) -> None:
        self.was_shut_down = True
        self.open.set()


async def until(collector: Collector, batches: int) -> None:
    with trio.fail_after(10):
        while len(collector.batches) < batches:  # noqa: ASYNC110 - a thread tells nobody
            await trio.sleep(0.01)


async def test_many_spans_leave_at_once_and_the_last_ones_at_the_end() -> None:
    collector = Collector()
    spans = SpanExporting(collector.export, collector.shut_down)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spans.run)
        for number in range(BATCH_SPANS_MAX):
            spans.add(number)
        await until(collector, 1)
        spans.add("last")
        nursery.cancel_scope.cancel()
    assert collector.batches == [list(range(BATCH_SPANS_MAX)), ["last"]]
    assert collector.was_shut_down


async def test_too_many_spans_are_dropped() -> None:
    collector = Collector()
    spans = SpanExporting(collector.export, collector.shut_down)
    for number in range(SPANS_MAX + 1):
        spans.add(number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spans.run)
        await until(collector, SPANS_MAX // BATCH_SPANS_MAX)
        nursery.cancel_scope.cancel()
    assert sum(map(len, collector.batches)) == SPANS_MAX


async def test_collector_that_refuses_is_told_of_once_with_its_reason() -> None:
    collector = Collector()
    collector.works = False
    spans = SpanExporting(collector.export, collector.shut_down)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            spans.add("lost")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spans.run)
                nursery.cancel_scope.cancel()
    assert [line["problem"] for line in logs] == ["refused; given up"]
    assert logging.getLogger("opentelemetry").propagate


async def test_collector_that_hangs_does_not_hold_the_end_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "LAST_WITHIN_S", 0.05)
    collector = Collector()
    collector.open.clear()
    spans = SpanExporting(collector.export, collector.shut_down)
    spans.add("held")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spans.run)
            nursery.cancel_scope.cancel()
    assert collector.was_shut_down, "which ends what goes on in the thread"
