"""The disk, as the log needs it."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol


class DiskOperation:
    """What the disk does, whether or not anybody waits for it; await it once, to do so.

    Unlike a coroutine it may be dropped, as happens when a node is stopped in that very turn.
    """

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`wait` is called when somebody waits."""
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, None]:
        """Return when it is over; raises what went wrong."""
        return self._wait().__await__()


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
        """Return `size` bytes from `offset` on, or as many as there are; raises `FileNotFoundError`
        when there is no such file. For use while the node runs: it may take as long as a write.
        """

    async def create(self, name: str, size: int) -> None:
        """Make a file of `size` zero bytes that are really allocated; it must not exist."""

    def write(self, name: str, offset: int, data: bytes) -> "DiskOperation":
        """Begin to overwrite or extend at `offset`; awaiting what it returns waits for the sync.

        The hot path: cheap when it stays inside the file, and begun without a task switch.
        """

    async def replace(self, name: str, data: bytes) -> None:
        """Make the file's content `data` atomically: after a crash it is all old or all new."""

    async def remove(self, name: str) -> None:
        """Delete the file; no error when it is not there."""
