"""Keeps an optional part of a process going, also when it raises what nobody foresaw.

A failure is logged, counted and survived: the part runs again after a pause, or, where it was one
of many (a connection, say), the others go on. A cancellation always passes.

Optional is what a node can do without for a while, as what it promised stays true: the source of
events, the operator. Not the log, and not consensus: what failed there must not go on.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final, NoReturn

import structlog
import trio
from prometheus_client import Counter

from noti.backoff import Backoff
from noti.errors import leaves_of
from noti.ports import Clock
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.node")

FAILURES: Final = Counter(
    "noti_part_failures_total", "Failures of optional parts, which a process survives.", ["part"]
)

_throttled: Final = ThrottledLog(time.monotonic)


@contextmanager
def contained(part: str) -> Iterator[None]:
    """Let no error of the body out; count it, and log it with its traceback.

    The body is one of many, a connection for example. The log is throttled for each error of a
    part.

    A cancellation passes, also beside an error.
    """
    try:
        yield
    except* Exception as group:  # noqa: BLE001 - it is logged
        FAILURES.labels(part).inc()
        text = "; ".join(map(repr, leaves_of(group)))
        _throttled.log(log.warning, f"{part} failed", (part, text), error=text, exc_info=group)


PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 5.0
"""Pauses between attempts double from the first to the last; who works longer begins anew."""


async def keep_going(
    name: str,
    part: Callable[[], Awaitable[object]],
    clock: Clock,
    rng: Random,
    failed: Callable[[str], object] = lambda _problem: None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Run `part` again and again until cancelled; started at once.

    Each failure is counted, and logged: with the traceback of each error that led to it, unless it
    is the last one again. `failed` gets it, as one line, before the pause.
    *Cancellation* reaches the part. What it raises then, beside the cancellation, is logged.
    """
    count, last_problem = FAILURES.labels(name), ""
    backoff = Backoff(rng, first_s=PAUSE_FIRST_S, most_s=PAUSE_MAX_S)
    task_status.started()
    while True:
        began = clock.now()
        problem = f"{name} ended by itself"
        try:
            await part()
        except* Exception as group:  # the one place in which a part's failure is survived
            errors = leaves_of(group)
            # Tasks side by side may all meet the same trouble.
            different = {f"{type(error).__name__}: {error}": error for error in errors}
            problem = "; ".join(different)
            for error in different.values() if problem != last_problem else ():
                log.error("optional part failed", part=name, exc_info=error)
        if clock.now() - began > PAUSE_MAX_S:
            backoff.succeeded()
        pause_s = backoff.failed()
        count.inc()
        last_problem = problem
        failed(problem)
        log.warning("trying again", part=name, problem=problem, pause_s=round(pause_s, 2))
        await clock.sleep_until(clock.now() + pause_s)
