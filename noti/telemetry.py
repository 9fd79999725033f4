"""Log lines for people and machines, and which build this is.

Each log event of our rooms (structlog) and of libraries (stdlib logging) becomes one line on
stderr, coloured in a terminal, JSON elsewhere; there is no log file. No line shows a secret, and no
traceback the values of local variables.
"""

import contextlib
import functools
import logging
import subprocess
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog
from prometheus_client import Gauge, disable_created_metrics

from noti import __version__
from noti.errors import leaves_of
from noti.redaction import MASK, is_secret_name, redacted

BUILD_INFO = Gauge("noti_build_info", "Always 1; says which build this is.", ["version", "build"])

_LIBRARIES_AT_WARNING = ("asyncio", "grpclib", "hpack", "hypercorn.access")
"""They tell about every frame or request at lower levels."""

ERRORS_SHOWN_MAX = 10
"""Of one group; when more fail together, they fail for the same reason."""


class _JsonLines(structlog.stdlib.ProcessorFormatter):
    """A formatter whose lines are JSON."""


def set_up(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "human", "json"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Send all log lines of the process to `stream` (stderr), from `level` on. Call once, first."""
    # When a counter was made is of no use beside `process_start_time_seconds`, and doubles them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    stream = sys.stderr if stream is None else stream
    terminal = stream.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        show_innermost,
        redact,
    ]
    renderer: structlog.typing.Processor
    formatter: type[structlog.stdlib.ProcessorFormatter] = structlog.stdlib.ProcessorFormatter
    if form == "human" or (form == "auto" and terminal):
        renderer = structlog.dev.ConsoleRenderer(
            colors=terminal, exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer, formatter = structlog.processors.JSONRenderer(), _JsonLines
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        formatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in _LIBRARIES_AT_WARNING:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def logs_json() -> bool:
    """Return whether standard error has log lines in JSON, and should hold nothing else."""
    return any(
        isinstance(handler, logging.StreamHandler)
        and handler.stream is sys.stderr
        and isinstance(handler.formatter, _JsonLines)
        for handler in logging.getLogger().handlers
    )


def show_build() -> None:
    """Let metrics say which build this is."""
    BUILD_INFO.labels(__version__, build()).set(1)


def show_innermost(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put the traceback of a log event's error into it; of a group, those of the errors in it."""
    given = event.pop("exc_info", None)
    match given:
        case BaseException():
            error: BaseException | None = given
        case (_, error, _):
            pass
        case _:
            error = sys.exc_info()[1] if given else None
    if error is not None:
        event["exception"] = innermost_tracebacks(error)
    return event


def innermost_tracebacks(error: BaseException) -> str:
    """Return the tracebacks of an error, or of all errors in a group, each by itself.

    A group holds the frames of everybody who waited; its errors hold those that matter.
    """
    leaves = leaves_of(error)
    shown = [_traceback(leaf) for leaf in leaves[:ERRORS_SHOWN_MAX]]
    if len(leaves) > ERRORS_SHOWN_MAX:
        shown.append(f"and {len(leaves) - ERRORS_SHOWN_MAX} more")
    return "\n\n".join(shown)


def _traceback(error: BaseException) -> str:
    """Return one error's own traceback, and those before it that are no groups."""
    described = traceback.TracebackException.from_exception(error)
    text = "".join(described.format(chain=False)).rstrip()
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is None or isinstance(before, BaseExceptionGroup) or _is_cancellation(before):
        return text
    return f"{_traceback(before)}\n\nwhich led to\n\n{text}"


def _is_cancellation(error: BaseException) -> bool:
    """Whether it is Trio's, or asyncio's; neither is loaded for each command that logs."""
    return type(error).__name__ in ("Cancelled", "CancelledError")


def redact(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Mask secrets in a log event: values of telling keys, credentials inside any text."""
    for key, value in event.items():
        event[key] = MASK if is_secret_name(key) else _without_secrets(value)
    return event


def _without_secrets(value: object) -> object:
    match value:
        case None | bool() | int() | float() | logging.LogRecord():  # the last is structlog's own
            return value
        case str():
            return redacted(value)
        case dict():
            return redact(None, "", {str(key): item for key, item in value.items()})
        case list() | tuple():
            return [_without_secrets(item) for item in value]
        case _:
            return redacted(repr(value))  # as it would be rendered


@functools.cache
def build() -> str:
    """Return version and commit, such as `0.7.0 (3f2a91c)`; `unknown` outside a git checkout."""
    checkout = Path(__file__).parent.parent
    commit = "unknown"
    if (checkout / ".git").exists():
        # Without git, or in somebody else's checkout, the version alone must do.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(
                ["git", "describe", "--always", "--dirty", "--tags"],  # noqa: S607 - the user's git
                cwd=checkout,
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            ).stdout.strip()
    return f"{__version__} ({commit})"
