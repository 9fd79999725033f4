"""Runs a service around its users: started before them, stopped after them, never restarted.

The rule of the tree: nesting is the shutdown order. When the tree is cancelled from above, a
service must outlive its users, which may need it for their last steps. So it is shielded until the
body has ended, and cancelled then. The shield is bounded because the body is not shielded: its last
steps have deadlines of their own.

The exception to the rule is a tree that falls: one of its services failed, and what the others rely
on may not work. All of them end at once then, without last steps: a node that half works must not
be taken for a whole one by its peers and clients.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Protocol, TypeVar

import structlog
import trio

from noti.errors import leaves_of

log = structlog.get_logger("noti.node")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Service(Protocol[T_co]):
    """A coroutine function that reports when it is ready, and then runs until cancelled."""

    def __call__(self, *, task_status: "trio.TaskStatus[T_co]") -> Awaitable[None]:
        """Run."""


@asynccontextmanager
async def running(
    name: str,
    service: Service[T],
    *,
    scope: trio.CancelScope | None = None,
    failed: Callable[[str], object] = lambda _name: None,
) -> AsyncIterator[T]:
    """Start `service`, run the body, stop the service.

    Yields what the service passed to `task_status.started`. If the service fails, the body is
    cancelled and the failure is raised (in an exception group, as from any nursery).
    `failed` is called before anything is cancelled. The `scope` can end the service early.
    *Cancellation*: reaches the body first, and the service when the body has ended.
    """
    scope = trio.CancelScope() if scope is None else scope

    async def run(*, task_status: trio.TaskStatus[T]) -> None:
        try:
            with scope:
                await service(task_status=task_status)
            if not scope.cancel_called:
                raise RuntimeError(f"{name} ended by itself")
        except BaseException as error:
            if _is_failure(error):
                failed(name)
            raise

    try:
        async with trio.open_nursery() as nursery:
            # Until it is ready it has no users: a cancellation from above may stop it at once.
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


async def set_when_cancelled(stop: trio.Event) -> None:
    """Wait until cancelled, and set `stop`, by which a shielded task beside this one ends.

    Also while that task still starts: whoever waits for its start is not cancelled before it ends.
    """
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


@asynccontextmanager
async def with_last_step(
    name: str, last_step: Callable[[], Awaitable[None]], within_s: float
) -> AsyncIterator[None]:
    """Run the body, then `last_step`, also when cancelled, for at most `within_s` seconds."""
    try:
        yield
    finally:
        with trio.move_on_after(within_s, shield=True) as scope:
            await last_step()
        log.debug("last step done", part=name, in_time=not scope.cancelled_caught)


class Tree:
    """Services, each running around those that are started after it, and their last steps.

    Leaving it, or cancelling the task in it, stops the last one first. When a service or the body
    fails, the tree falls: all services end at once, and the last steps are left out.
    """

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._scopes: list[trio.CancelScope] = []
        self._falls = False
        self._at_fall: list[Callable[[], object]] = []

    async def __aenter__(self) -> "Tree":
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if error is not None and _is_failure(error):
            self._fall("body")
        return await self._stack.__aexit__(kind, error, traceback)

    async def start(self, name: str, service: Service[T]) -> T:
        """Start a service; returns what it reported when it was ready. See `running`."""
        scope = trio.CancelScope()
        self._scopes.append(scope)
        if self._falls:
            scope.cancel()
        return await self._stack.enter_async_context(
            running(name, service, scope=scope, failed=self._fall)
        )

    async def before_stop(
        self, name: str, last_step: Callable[[], Awaitable[None]], within_s: float
    ) -> None:
        """Run `last_step` before the services started so far stop, unless the tree falls."""

        async def unless_falling() -> None:
            if not self._falls:
                await last_step()

        await self._stack.enter_async_context(with_last_step(name, unless_falling, within_s))

    def at_fall(self, call: Callable[[], object]) -> None:
        """Call something when the tree begins to fall, before any service ends."""
        self._at_fall.append(call)

    def _fall(self, name: str) -> None:
        if self._falls:
            return
        self._falls = True
        log.info("a part failed: all end at once", part=name)
        for call in self._at_fall:
            call()
        for scope in self._scopes:
            scope.cancel()


def _is_failure(error: BaseException) -> bool:
    """Whether there is more in it than cancellations."""
    return not all(isinstance(leaf, trio.Cancelled) for leaf in leaves_of(error))
