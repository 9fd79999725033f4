"""What wakes the hub: sockets that have room again or hung up, and a doorbell.

One private epoll descriptor watches all of them, and is itself awaited through Trio: no task per
client.
"""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

import trio

HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Wakeups:
    """Sleeps until something happens; usable inside `opened` only, but for `ring`."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._doorbell = -1
        self._rung = False

    @property
    def is_open(self) -> bool:
        """Whether anybody can be woken."""
        return self._epoll is not None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the descriptors open."""
        assert self._epoll is None, "they are opened once at a time"
        with select.epoll() as epoll:
            self._doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                epoll.register(self._doorbell, select.EPOLLIN)
                self._epoll = epoll
                yield
            finally:
                self._epoll = None
                os.close(self._doorbell)
                self._doorbell = -1
                self._rung = False

    def watch(self, fd: int) -> None:
        """Report a socket once when the kernel has room again, and once at hang-up."""
        assert self._epoll is not None
        self._epoll.register(fd, select.EPOLLET | select.EPOLLOUT | select.EPOLLRDHUP)

    def forget(self, fd: int) -> None:
        """Report nothing more about a socket."""
        assert self._epoll is not None
        self._epoll.unregister(fd)

    def ring(self) -> None:
        """Wake the sleeper, once for many rings. Does nothing while nobody can be woken."""
        if not self._rung and self._doorbell >= 0:
            self._rung = True
            os.eventfd_write(self._doorbell, 1)

    async def sleep_until(self, deadline: float) -> None:
        """Return at `deadline` (Trio's time), or when there is something to report."""
        assert self._epoll is not None
        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_readable(self._epoll.fileno())

    def reports(self) -> list[tuple[int, bool]]:
        """Return what happened since the last call: (descriptor, whether it hung up)."""
        assert self._epoll is not None
        events = self._epoll.poll(0)
        if self._rung:
            # Rings while this was at work are for the next time; `poll` has seen this one.
            os.eventfd_read(self._doorbell)
            self._rung = False
        return [(fd, bool(event & HANG_UP)) for fd, event in events if fd != self._doorbell]
