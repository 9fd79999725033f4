"""`noti run`: one node in this process, from start to signal."""

import gc
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
import trio

from noti import hang_up, telemetry
from noti.cli.former_flags import former_flags, translated
from noti.cli.loading import file_of
from noti.cli.settings import load_config, settings_options
from noti.cli.signals import until_signalled
from noti.importing import importing
from noti.systemd import tell_ready

log = structlog.get_logger("noti.cli")

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
    _set_up_logs_early(options)  # so that a wrong setting is told in the form of all lines
    flags = translated(options)
    config = load_config(config_file, flags)
    telemetry.set_up(level=config.log_level, form=config.log_format)
    hang_up.hold_off()  # as the program does from its first moment on, if it is one
    gc.disable()  # loading a node makes no garbage, and looking for it took a tenth of the time
    with importing():
        from noti import node  # here, so that the other commands start without loading a node
        from noti.cli.config_check import exposures_of
        from noti.reloading import SettingsFile

    telemetry.show_build()
    _collect_garbage_seldom()
    log.info("starting", build=telemetry.build(), pid=os.getpid(), **config.masked())
    for finding in exposures_of(config):
        log.warning(finding.text)
    settings = SettingsFile(config, partial(load_config, config_file, flags), file_of(config_file))
    trio.run(
        partial(
            until_signalled,
            partial(_run_and_tell, partial(node.run, config, settings=settings)),
            lambda: settings.current.shutdown_deadline_s,
            reload=settings.reload,
        )
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nothing is left to hang up
    log.info("stopped")


async def _run_and_tell(run_node: Callable[..., Awaitable[object]]) -> None:
    """Be a node, and let systemd know when it is up."""
    async with trio.open_nursery() as nursery:
        await nursery.start(run_node)
        tell_ready()


def _set_up_logs_early(options: Mapping[str, Any]) -> None:
    """Send log lines as flags and environment say, before all settings are known to be right."""
    form = options.get("log_format") or os.environ.get("NOTI_LOG_FORMAT")
    telemetry.set_up(form="json" if form == "json" else "human" if form == "human" else "auto")


def _collect_garbage_seldom() -> None:
    """Keep modules out of garbage collections, and let there be fewer.

    They took 8 % of a busy leader's time, and nearly all that a node allocates is free without
    them. None is made now: it found 187 objects of garbage, and took 50 ms of the start.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
    gc.enable()
