"""`noti run`: one node in this process, from start to signal."""

import gc
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
import trio

from noti import telemetry
from noti.cli.former_flags import former_flags, translated
from noti.cli.settings import load_config, settings_options
from noti.importing import importing

log = structlog.get_logger("noti.cli")

INTERRUPTED = 130
"""Exit status of a process that a second signal ended: 128 + SIGINT, as shells have it."""

ECHO_S = 1.0
"""A second signal so soon is the first one by another way: the terminal's group, and a wrapper."""

GARBAGE_OBJECTS = 10_000
"""Objects more than before that make Python look for cycles; a few megabytes at most."""


@click.command(
    epilog="Each setting is also an environment variable (--http-addr is NOTI_HTTP_ADDR) and a key "
    "of the TOML file (http_addr). Flags win over the environment, the environment over the file."
)
@settings_options()
@former_flags
def run(config_file: Path | None, **options: Any) -> None:
    """Run one node until SIGTERM or Ctrl-C.

    The node hands over what it leads, announces that it leaves, ends its streams and exits with
    status 0.
    """
    config = load_config(config_file, translated(options))
    telemetry.set_up(level=config.log_level, form=config.log_format)
    gc.disable()  # loading a node makes no garbage, and looking for it took a tenth of the time
    with importing():
        from noti import node  # here, so that the other commands start without loading a node

    telemetry.show_build()
    _collect_garbage_seldom()
    log.info("starting", build=telemetry.build(), pid=os.getpid(), **config.masked())
    trio.run(partial(until_signalled, partial(node.run, config), config.shutdown_deadline_s))
    log.info("stopped")


def _collect_garbage_seldom() -> None:
    """Keep modules out of garbage collections, and let there be fewer.

    They took 8 % of a busy leader's time, and nearly all that a node allocates is free without
    them. None is made now: it found 187 objects of garbage, and took 50 ms of the start.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
    gc.enable()


async def until_signalled(
    service: Callable[[], Awaitable[object]], stop_deadline_s: float, echo_s: float = ECHO_S
) -> None:
    """Run `service` until it ends, fails, or SIGTERM or SIGINT asks it to stop.

    The first signal cancels the service, and this returns when its tree is down. A second signal,
    or `stop_deadline_s` seconds, ends the process on the spot: who asks twice means it. Signals
    within `echo_s` seconds of the first count as the same request.
    Raises what the service raises. Cancellation: cancels the service.
    """
    async with trio.open_nursery() as nursery:
        running = trio.CancelScope()
        await nursery.start(_watch_signals, running, stop_deadline_s, echo_s)
        with running:
            await service()
        nursery.cancel_scope.cancel()


async def _watch_signals(
    running: trio.CancelScope,
    stop_deadline_s: float,
    echo_s: float,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        number = await anext(signals)
        log.info("stopping", signal=signal.Signals(number).name)
        running.cancel()
        stopping_since = trio.current_time()
        with trio.move_on_after(stop_deadline_s):
            await anext(signals)
            while trio.current_time() - stopping_since < echo_s:
                await anext(signals)
            log.warning("stopped by a second signal")
            os._exit(INTERRUPTED)
        log.error("stop took too long, leaving anyway", deadline_s=stop_deadline_s)
        os._exit(1)
