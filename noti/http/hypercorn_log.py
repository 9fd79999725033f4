"""Has Hypercorn's log lines come out as ours.

Enters: what Hypercorn says. Leaves: log events. Never: an access log; a traceback for a request.
"""

import sys
from typing import Any

import structlog
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.typing import ResponseSummary, WWWScope

log = structlog.get_logger("noti.http")


class HypercornLog(Logger):
    """Hypercorn's log lines in ours."""

    def __init__(self, config: Config) -> None:
        self.access_logger = None
        self.error_logger = None

    async def access(
        self, request: WWWScope, response: ResponseSummary | None, request_time: float
    ) -> None:
        """Tell about a request, at debug level."""
        log.debug(
            "request",
            path=request["path"],
            status=None if response is None else response["status"],
            took_ms=round(request_time * 1000, 1),
        )

    async def log(self, level: int, message: str, *args: Any, **_: Any) -> None:
        """Tell at a level of `logging`."""
        log.log(level, message, args=args)

    async def info(self, message: str, *args: Any, **_: Any) -> None:
        """Tell at debug level: that it starts to listen, which we say ourselves."""
        log.debug(message, args=args)

    async def warning(self, message: str, *args: Any, **_: Any) -> None:
        """Tell."""
        log.warning(message, args=args)

    async def error(self, message: str, *args: Any, **_: Any) -> None:
        """Tell."""
        log.error(message, args=args)

    async def critical(self, message: str, *args: Any, **_: Any) -> None:
        """Tell."""
        log.critical(message, args=args)

    async def exception(self, message: str, *args: Any, **_: Any) -> None:
        """Tell what kind of exception a request raised."""
        log.error("request failed", where=message, error=repr(sys.exc_info()[1]))
