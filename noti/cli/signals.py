"""Runs what a command runs until a signal asks it to stop."""

import os
import signal
from collections.abc import Awaitable, Callable

import structlog
import trio

from noti import hang_up

log = structlog.get_logger("noti.cli")

INTERRUPTED = 130
"""Exit status of a process that a second signal ended: 128 + SIGINT, as shells have it."""

ECHO_S = 1.0
"""A second signal so soon is the first one by another way: the terminal's group, and a wrapper."""

STOPPING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask to stop."""


async def until_signalled(
    service: Callable[[], Awaitable[object]],
    stop_deadline_s: float | Callable[[], float],
    echo_s: float = ECHO_S,
    *,
    reload: Callable[[], object] | None = None,
) -> None:
    """Run `service` until it ends, fails, or SIGTERM or SIGINT asks it to stop.

    The first signal cancels the service, and this returns when its tree is down. A second signal,
    or `stop_deadline_s` seconds, ends the process on the spot: who asks twice means it. Signals
    within `echo_s` seconds of the first count as the same request. With `reload`, SIGHUP calls
    that, unless it says that the terminal is closed, which asks to stop, too.
    Raises what the service raises. Cancellation: cancels the service.
    """
    async with trio.open_nursery() as nursery:
        running = trio.CancelScope()
        await nursery.start(_watch_signals, running, stop_deadline_s, echo_s, reload)
        with running:
            await service()
        nursery.cancel_scope.cancel()


async def _watch_signals(
    running: trio.CancelScope,
    stop_deadline_s: float | Callable[[], float],
    echo_s: float,
    reload: Callable[[], object] | None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    in_terminal = hang_up.in_terminal()
    watched = STOPPING if reload is None else (*STOPPING, signal.SIGHUP)
    with trio.open_signal_receiver(*watched) as signals:
        task_status.started()
        while (number := await anext(signals)) == signal.SIGHUP and reload is not None:
            if in_terminal and not hang_up.in_terminal():
                break
            reload()
        log.info("stopping", signal=signal.Signals(number).name)
        running.cancel()
        stopping_since = trio.current_time()
        deadline_s = stop_deadline_s() if callable(stop_deadline_s) else stop_deadline_s
        with trio.move_on_after(deadline_s):
            number = await anext(signals)
            while number == signal.SIGHUP or trio.current_time() - stopping_since < echo_s:
                number = await anext(signals)
            log.warning("stopped by a second signal")
            os._exit(INTERRUPTED)
        log.error("stop took too long, leaving anyway", deadline_s=deadline_s)
        os._exit(1)
