"""Takes settings that change while a node runs, when their file changes or an operator says so.

Settings that are not valid change nothing. What needs a restart is told, in one line.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog
import trio
from prometheus_client import Gauge

from noti import telemetry
from noti.assembly import Parts, history_limits_of, level_max_of, voter_limits_of
from noti.certificates.renewal import Made, Renewed, keep_renewed
from noti.config import Config, shown
from noti.errors import ConfigInvalid
from noti.optional import contained
from noti.setting_changes import change_of
from noti.world import World

log = structlog.get_logger("noti.node")

REJECTED = Gauge(
    "noti_settings_rejected",
    "1 while the file of settings is not valid, so that those before are in use.",
)
WAITING = Gauge(
    "noti_settings_awaiting_restart", "Settings that were changed, and count after a restart."
)

Take = Callable[[Config], None]
"""Puts settings into use at once; raises `ConfigInvalid`, and changes nothing then."""


class ChangingSettings(Protocol):
    """The settings of a node, as far as they may change while it runs."""

    async def run(
        self, take: Take, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have newer ones put into use, until cancelled."""


class SettingsFile:
    """The settings of a node whose file may change."""

    def __init__(self, config: Config, load: Callable[[], Config], file: Path | None) -> None:
        """Begin with `config`; `load` reads all anew, from `file` and what does not change.

        It raises `ConfigInvalid`. Without a file, nothing ever changes.
        """
        self.current = config
        """Those in use."""
        self._load = load
        self._file = file
        self._watched: Renewed[Config] | None = None

    def reload(self) -> None:
        """Look at the file now; never raises."""
        if self._file is None:
            log.info("no settings to reload: there is no file of them, --config FILE")
        elif self._watched is not None:
            with contained("settings"):
                self._watched.renew()

    async def run(
        self, take: Take, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow the file until cancelled."""
        if self._file is None:
            task_status.started()
            await trio.sleep_forever()

        def make() -> Made[Config]:
            return Made(self._renewed(take), {})

        # Those in use were read a while ago; what the file became since then may be invalid.
        first = Made(self.current, {})
        watched = Renewed("", [self._file], make, kind="settings", told=False, first=first, log=log)
        watched.renew()
        self._watched = watched  # from now on somebody has changed the file, or asks
        await keep_renewed([watched], task_status=task_status)

    def _renewed(self, take: Take) -> Config:
        try:
            change = change_of(self.current, self._load())
            if change.taken:
                take(change.config)
        except ConfigInvalid:
            REJECTED.set(1)
            raise
        self.current = change.config
        REJECTED.set(0)
        WAITING.set(len(change.waiting))
        if change.taken:
            log.info(
                "settings changed",
                **{name: shown(name, getattr(change.config, name)) for name in change.taken},
            )
        if change.waiting:
            log.warning(
                "settings that changed count only after a restart", settings=list(change.waiting)
            )
        if self._watched is not None and not (change.taken or change.waiting):
            log.info("settings read again: nothing changed")
        return change.config


def take_settings(parts: Parts, world: World, config: Config) -> None:
    """Have a node go by other settings from now on, which differ in what may change.

    Raises `ConfigInvalid` for a file that cannot be used, and changes nothing then.
    """
    parts.authorization.change(config)  # the only one that may fail
    telemetry.set_up(level=config.log_level, form=config.log_format)
    parts.limits.change(history_limits_of(config))
    parts.controller.limits = voter_limits_of(config)
    parts.level_raising.level_max = level_max_of(config, world)
    parts.intake.change(config.pacing_s)
    world.change(config)
