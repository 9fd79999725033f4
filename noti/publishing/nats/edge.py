"""Where exceptions of nats-py stop: whatever it raises is a source that cannot be used now."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, TypeVarTuple

import nats.errors
import nats.js.errors
import structlog
import trio

from noti.asyncio_loop import AsyncioLoop
from noti.errors import NotiError, SourceUnavailable
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.publishing")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CALL_S: Final = 10.0
"""For anything but the waiting in a fetch: a few requests. A call that takes longer hangs, in the
server or in nats-py, and its connection is given up."""

_USUAL_ERRORS: Final = (nats.errors.Error, OSError, TimeoutError, NotiError)
"""What nats-py raises when something is wrong outside of it; anything else is its bug, or ours."""


class NatsEdge:
    """The way from Trio to what uses nats-py on the asyncio loop."""

    def __init__(self, asyncio_loop: AsyncioLoop) -> None:
        self._asyncio_loop = asyncio_loop
        self._throttled = ThrottledLog(trio.current_time)

    async def call(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        wait_s: float = 0.0,
    ) -> T:
        """Run `function` on the asyncio loop, which may wait for `wait_s` seconds by intent.

        Raises `SourceUnavailable`, and nothing else.

        An error that nobody foresaw is logged with its traceback, throttled.
        """
        try:
            with trio.move_on_after(wait_s + CALL_S):
                return await self._asyncio_loop.call(function, *args)
        except SourceUnavailable:
            raise
        except nats.js.errors.APIError as error:
            text = f"{error.description} (error {error.err_code})"
            raise SourceUnavailable(f"NATS: {text}") from error
        except _USUAL_ERRORS as error:
            raise SourceUnavailable(f"NATS: {str(error) or type(error).__name__}") from error
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._throttled.log(log.exception, "the NATS client failed", text)
            raise SourceUnavailable(f"the NATS client failed: {text}") from error
        raise SourceUnavailable(f"NATS: no answer within {wait_s + CALL_S:g} s")
