"""Keeps what was made of files, certificates above all, in step with the files.

Invalid files replace nothing. Connections that exist keep what they began with.

Files are looked at every two seconds: Kubernetes renews them by moving a symlink, network file
systems report nothing, and ten stat calls cost nothing.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import structlog
import trio
from prometheus_client import Gauge

from noti.certificates.expiry import expiry_notice, expiry_timestamp
from noti.errors import ConfigInvalid

log = structlog.get_logger("noti.certificates")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LOOK_INTERVAL_S = 2.0
"""A change is used at the second look that finds it the same: within 4 s, and never half written
(certificate and key are two files)."""
RETRY_AFTER = timedelta(minutes=1)
"""Files that were rejected may become valid by themselves: when their time comes."""
NOTICE_EVERY = timedelta(days=1)

_EXPIRY = Gauge(
    "noti_tls_certificate_expiry_seconds",
    "Unix time at which the certificate in use expires; of a file of CAs, the last of them.",
    ["use", "file"],
)


class Current(Protocol[T_co]):
    """Something made of files that may be renewed while it is in use."""

    @property
    def current(self) -> T_co:
        """What the next connection uses."""


@dataclass(frozen=True)
class Made(Generic[T]):
    """What was made of the files, and when what is in them ends."""

    value: T
    ends: Mapping[Path, datetime]
    """By file; times have a time zone."""


class Renewed(Generic[T]):
    """Something made of files, anew whenever they change and are valid."""

    def __init__(
        self,
        use: str,
        files: Sequence[Path],
        make: Callable[[], Made[T]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        kind: str = "TLS files",
        told: bool = True,
        first: Made[T] | None = None,
        log: structlog.stdlib.BoundLogger = log,
    ) -> None:
        """Make it for the first time; raises what `make` raises: `ConfigInvalid`.

        `kind` is what the files are, in log lines to `log`; `use` is left out there if it is empty.
        Without `told`, `make` says itself what is new. `first` is what was made of the files
        before; then nothing is made, or raised, now.
        """
        self._use = use
        self._log = log
        self._in_log = {"use": use} if use else {}
        self._kind = kind
        self._told = told
        self._files = files
        self._make = make
        self._now = now
        self._tried = self._found = self._looks()
        self._rejected = ""
        self._retry_at = now()
        self._noticed_at: datetime | None = None
        self._made = make() if first is None else first
        self._show()

    @property
    def current(self) -> T:
        """The newest that was valid, for the next connection."""
        return self._made.value

    def look(self) -> None:
        """See whether the files changed, and whether their time runs out. Never raises."""
        found, earlier = self._looks(), self._found
        self._found = found
        retry = self._rejected and self._now() >= self._retry_at
        if found == earlier and (found != self._tried or retry):
            self._tried = found
            self._renew()
        self._give_notice()

    def renew(self) -> None:
        """Make it anew at once, whether the files changed or not, and log it if that fails, again.

        Never raises.
        """
        self._rejected = ""  # who asks is to hear what is still wrong
        self._tried = self._found = self._looks()
        self._renew()

    def _looks(self) -> tuple[tuple[int, int, int, int] | None, ...]:
        return tuple(map(_look_of, self._files))

    def _renew(self) -> None:
        try:
            made = self._make()
        except (ConfigInvalid, ssl.SSLError, OSError, ValueError) as error:
            if str(error) != self._rejected:
                self._log.error(
                    f"new {self._kind} rejected, the old ones stay in use",
                    **self._in_log,
                    reason=str(error),
                )
            self._rejected = str(error)
            self._retry_at = self._now() + RETRY_AFTER
            return
        self._rejected = ""
        self._made = made
        self._noticed_at = None
        self._show()
        if self._told:
            files = [str(file) for file in self._files]
            self._log.info(f"new {self._kind} in use", **self._in_log, files=files)

    def _show(self) -> None:
        for file, end in self._made.ends.items():
            _EXPIRY.labels(self._use, str(file)).set(expiry_timestamp(end))

    def _give_notice(self) -> None:
        now = self._now()
        if self._noticed_at is not None and now - self._noticed_at < NOTICE_EVERY:
            return
        for file, notice in self.notices():
            self._noticed_at = now
            self._log.warning(f"certificate {notice}", **self._in_log, file=str(file))

    def notices(self) -> Iterator[tuple[Path, str]]:
        """Yield the files whose time runs out, and what to say of them."""
        for file, end in self._made.ends.items():
            if (notice := expiry_notice(end, self._now())) is not None:
                yield file, notice


async def keep_renewed(
    things: Sequence[Renewed[Any]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Look at all of them again and again, until cancelled."""
    task_status.started()
    while True:
        for thing in things:
            thing.look()
        await trio.sleep(LOOK_INTERVAL_S)


def _look_of(file: Path) -> tuple[int, int, int, int] | None:
    """Return what changes with a file: also when it is moved, or its permissions are mended."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size
