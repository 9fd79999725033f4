"""The disk, as the log needs it."""

from collections.abc import Awaitable
from typing import Protocol


class Disk(Protocol):
    """One node's data directory, locked for this process. Names are plain file names.

    Every method that changes something is durable when it returns (data, and the directory where a
    name appeared, vanished or moved). Raises `StorageFailed` when the operating system refuses;
    after that the disk must not be used again.
    """

    async def names(self) -> list[str]:
        """Return the file names, sorted."""

    async def read(self, name: str) -> bytes:
        """Return the whole file; raises `FileNotFoundError` when there is none."""

    async def read_part(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, or as many as there are.

        Raises `FileNotFoundError` when there is no such file. For use while the node runs: it may
        take as long as a write.
        """

    async def create(self, name: str, size: int) -> None:
        """Make a file of `size` zero bytes that are really allocated; it must not exist."""

    def write(self, name: str, offset: int, data: bytes) -> Awaitable[None]:
        """Begin to overwrite or extend at `offset`; awaiting what it returns waits for the sync.

        It is awaited once, or dropped (no coroutine may be), as happens when a node is stopped in
        that very turn: the write happens all the same.

        The hot path: cheap when it stays inside the file, and begun without a task switch.
        """

    async def replace(self, name: str, data: bytes) -> None:
        """Make the file's content `data` atomically: after a crash it is all old or all new."""

    async def stage(self, name: str, offset: int, data: bytes) -> None:
        """Write a part of what shall replace the file, in order; offset 0 begins anew.

        What was staged does not survive a crash, nor a `replace` of the same file. Unlike `replace`
        it lets other changes come between the parts.
        """

    async def publish(self, name: str) -> None:
        """Make what was staged the file's content, atomically as `replace` does."""

    async def remove(self, name: str) -> None:
        """Delete the file; no error when it is not there."""
