"""Sends spans away, in batches, from a thread; and loses them rather than hold anybody up.

Not OpenTelemetry's own batches: their thread is in no nursery tree, and to end it takes up to 30 s.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog
import trio
from prometheus_client import Counter

from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.tracing")

SPANS_MAX: Final = 2048
BATCH_SPANS_MAX: Final = 512
EVERY_S: Final = 5.0
"""As OpenTelemetry's batches have it: what waits at most, what is sent together, how often."""
LAST_WITHIN_S: Final = 1.0
"""What is left at the end is lost after this: a collector that is well takes some ms."""

_SPANS: Final = Counter(
    "noti_trace_spans_total", "Spans, by outcome: `exported`, `failed` or `dropped`.", ["outcome"]
)


class SpanExporting:
    """The spans of one process on their way to the collector."""

    def __init__(
        self, export: Callable[[Sequence[object]], bool], shut_down: Callable[[], object]
    ) -> None:
        """`export` sends spans, and blocks a thread for some seconds; returns whether it could.

        `shut_down` ends an `export` that goes on, and all that follow.
        """
        self._export = export
        self._shut_down = shut_down
        self._spans: deque[object] = deque()
        self._many = trio.Event()
        self._throttled = ThrottledLog(trio.current_time)

    def add(self, span: object) -> None:
        """Have a span that has ended exported; it is dropped if too many wait. Never waits."""
        if len(self._spans) >= SPANS_MAX:
            _SPANS.labels("dropped").inc()
            return
        self._spans.append(span)
        if len(self._spans) >= BATCH_SPANS_MAX:
            self._many.set()

    async def run(self) -> None:
        """Export until cancelled; then what is left, for `LAST_WITHIN_S` at most."""
        limiter = trio.CapacityLimiter(1)
        with _said_by_opentelemetry() as problem:
            export = partial(self._export_all, limiter, problem)
            try:
                while True:
                    with trio.move_on_after(EVERY_S):
                        await self._many.wait()
                    self._many = trio.Event()
                    await export()
            finally:
                with trio.move_on_after(LAST_WITHIN_S, shield=True):
                    await export()
                self._shut_down()

    async def _export_all(self, limiter: trio.CapacityLimiter, problem: Callable[[], str]) -> None:
        while self._spans:
            count = min(len(self._spans), BATCH_SPANS_MAX)
            batch = [self._spans.popleft() for _ in range(count)]
            outcome = "failed"
            try:
                done = await trio.to_thread.run_sync(
                    self._export, batch, limiter=limiter, abandon_on_cancel=True
                )
                outcome = "exported" if done else "failed"
            finally:
                _SPANS.labels(outcome).inc(count)
            why = problem()
            if not done:
                self._throttled.log(
                    log.warning,
                    "spans were not exported; events go on without",
                    spans=count,
                    problem=why,
                )
                return


@contextmanager
def _said_by_opentelemetry() -> Iterator[Callable[[], str]]:
    """Keep its log lines, one for each attempt, out of ours.

    Yields what returns the first and the last since it was called: what went wrong, and the end.
    """
    said: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said[1:] = [record.getMessage()]

    def take() -> str:
        text = "; ".join(said)
        said.clear()
        return text

    logger, handler = logging.getLogger("opentelemetry"), Keeping(logging.WARNING)
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield take
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
