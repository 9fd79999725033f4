"""How an answer comes later: the one convention of all rooms.

The caller passes an `on_done`, and goes on. It is called once, in the turn in which the answer is
known, and perhaps before the function that took it returns.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import trio

from noti.errors import NotiError, NotLeader

T = TypeVar("T")

OnDone: TypeAlias = Callable[[T | NotiError], None]
"""Takes the result, or why there is none. Never waits, never raises."""


class Completion(Generic[T]):
    """An `on_done` that can be awaited."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._known = trio.Event()
        self._outcome: T | NotiError | None = None

    def __call__(self, outcome: T | NotiError) -> None:
        """Take the outcome."""
        self._outcome = outcome
        self._known.set()

    async def wait(self) -> T:
        """Return the result once it is known; raises the error if it is one.

        *Cancellation* changes nothing: what was asked for goes on.
        """
        if not self._known.is_set():  # spares a turn of the scheduler
            await self._known.wait()
        if isinstance(self._outcome, NotiError):
            raise self._outcome
        return self._outcome  # type: ignore[return-value]


async def once_led(
    submit: Callable[[OnDone[T]], None], wait_news: Callable[[], Awaitable[object]]
) -> T:
    """Return what `submit` is answered; as long as there is no leader, wait for news of one.

    Raises what else it is answered. *Cancellation*: what was submitted goes on.
    """
    while True:
        completion: Completion[T] = Completion()
        submit(completion)
        try:
            return await completion.wait()
        except NotLeader:
            await wait_news()
