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
from noti.cli.loading import file_of
from noti.cli.settings import load_config, settings_options
from noti.importing import importing

log = structlog.get_logger("noti.cli")

INTERRUPTED = 130
"""Exit status of a process that a second signal ended: 128 + SIGINT, as shells have it."""

ECHO_S = 1.0
"""A second signal so soon is the first one by another way: the terminal's group, and a wrapper."""

STOPPING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask to stop."""

STDERR = 2
"""Descriptor of standard error."""

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
    flags = translated(options)
    config = load_config(config_file, flags)
    telemetry.set_up(level=config.log_level, form=config.log_format)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until somebody can do what it asks for
    gc.disable()  # loading a node makes no garbage, and looking for it took a tenth of the time
    with importing():
        from noti import node  # here, so that the other commands start without loading a node
        from noti.cli.config_check import exposed_secrets
        from noti.reloading import SettingsFile

    telemetry.show_build()
    _collect_garbage_seldom()
    log.info("starting", build=telemetry.build(), pid=os.getpid(), **config.masked())
    for finding in exposed_secrets(config):
        log.warning(finding.text)
    settings = SettingsFile(config, partial(load_config, config_file, flags), file_of(config_file))
    trio.run(
        partial(
            until_signalled,
            partial(node.run, config, settings=settings),
            lambda: settings.current.shutdown_deadline_s,
            reload=settings.reload,
        )
    )
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
    in_terminal = _in_terminal()
    watched = STOPPING if reload is None else (*STOPPING, signal.SIGHUP)
    with trio.open_signal_receiver(*watched) as signals:
        task_status.started()
        while (number := await anext(signals)) == signal.SIGHUP and reload is not None:
            if in_terminal and not _in_terminal():
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


def _in_terminal() -> bool:
    """Whether people read the log; false, too, when their terminal was closed."""
    return os.isatty(STDERR)
