"""How the operator of this machine reaches the node."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio


class Control(Protocol):
    """What only the operator of this machine may ask of the node."""

    async def serve(
        self,
        leave: Callable[[float], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take requests until cancelled.

        `leave(seconds)` decommissions the node, or raises a `NotiError` that is the answer.
        """
