"""Runs a service around those who use it: started before them, stopped after them.

Enters: a service (`run(task_status)`) and the body that uses it. Leaves: what the service reported
when it was ready. Never: restarts anything, hides an exception.

The rule of the tree: nesting is the shutdown order. When the tree is cancelled from above, a
service must outlive its users, who may need it to say goodbye. So it is shielded until the body has
ended, and cancelled then. The shield is bounded because the body is not shielded: whatever it does
on its way out has deadlines of its own.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import structlog
import trio

log = structlog.get_logger("noti.node")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Service(Protocol[T_co]):
    """A coroutine function that reports when it is ready, and then runs until cancelled."""

    def __call__(self, *, task_status: "trio.TaskStatus[T_co]") -> Awaitable[None]:
        """Run."""


@asynccontextmanager
async def running(name: str, service: Service[T]) -> AsyncIterator[T]:
    """Start `service`, run the body, stop the service.

    Yields what the service passed to `task_status.started`. If the service fails, the body is
    cancelled and the failure is raised (in an exception group, as from any nursery).
    *Cancellation*: reaches the body first, and the service when the body has ended.
    """
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[T]) -> None:
        with scope:
            await service(task_status=task_status)
        if not scope.cancel_called:
            raise RuntimeError(f"{name} ended by itself")

    try:
        async with trio.open_nursery() as nursery:
            # Until it is ready nobody needs it: a cancellation from above may stop it at once.
            ready = await nursery.start(run)
            # Nor must a shield come between a service and a cancellation that is reaching it.
            scope.shield = trio.current_effective_deadline() > -math.inf
            log.debug("started", part=name)
            try:
                yield ready
            finally:
                log.debug("stopping", part=name)
                scope.cancel()
    finally:
        if scope.shield:
            log.debug("stopped", part=name)


@asynccontextmanager
async def farewell(
    name: str, goodbye: Callable[[], Awaitable[None]], within_s: float
) -> AsyncIterator[None]:
    """Run the body, then `goodbye`, also when cancelled, for at most `within_s` seconds."""
    try:
        yield
    finally:
        with trio.move_on_after(within_s, shield=True) as scope:
            await goodbye()
        log.debug("said goodbye", part=name, in_time=not scope.cancelled_caught)
