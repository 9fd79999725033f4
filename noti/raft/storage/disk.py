"""A node's data directory: locked for one process, and written by a process of its own.

Nothing is synced on the event loop or in a thread, and once an operation has failed there is no
other.

Why a process, and what it promises: see `disk_writer.py`. The writer inherits the lock, so a node
that was killed leaves its directory locked until its last sync is over, and a successor never reads
a file that still changes.
"""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Generator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import trio
from prometheus_client import Histogram

from noti.errors import StorageFailed, StorageLocked
from noti.raft.storage import disk_writer
from noti.raft.storage.disk_writer import REPLY, REQUEST, TEMPORARY_SUFFIX

__all__ = ["LOCK_NAME", "FileDisk", "open_disk"]

log = structlog.get_logger("noti.raft")

LOCK_NAME = "lock"
"""File whose lock means that the directory is in use; it holds the process id of the user."""

PREDECESSOR_WAIT_S = 5.0
"""How long to wait for the writer of a node that is dead: the longest stall of a sync that a disk
recovers from."""

CLOSE_WAIT_S = 3.0
"""How long the writer may take to finish at the end, within the 10 s that a node has to stop."""

_KILL_WAIT_S = 1.0

_POLL_S = 0.02

_WRITER_DIED = "the process that writes the data directory has died"

_write_seconds = Histogram(
    "noti_raft_disk_write_seconds",
    "Time from asking for a write until it is durable",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)


class _Request:
    """One request, performed whether or not anybody waits for it; await it once, to do so."""

    def __init__(self, disk: "FileDisk", operation: int, what: str) -> None:
        self.operation = operation
        self.what = what
        self.since = trio.current_time()
        self.found: bytes | None = None
        """What was read; None when there is no such file."""
        self.answered = False
        self.failure: str | None = None
        self._disk = disk

    def __await__(self) -> Generator[Any, Any, None]:
        """Return when its reply is there; raises `StorageFailed`."""
        return self._disk._wait_for(self).__await__()


class FileDisk:
    """A `Disk` in a real directory; made by `open_disk`.

    Several tasks may call at once; requests are performed in the order of the calls. Nothing limits
    how many wait: each of the few tasks that write waits for its answer.
    Cancellation: a request that was sent is performed all the same, before any later one; only its
    answer is lost.
    """

    def __init__(self, directory: Path, writer_pid: int, connection: socket.socket) -> None:
        self.writer_pid = writer_pid
        """Process id of the writer."""
        self._directory = directory
        self._connection = connection
        self._waiting: deque[_Request] = deque()
        """In the order of the requests, which is the order of the replies."""
        self._outbox: deque[memoryview] = deque()
        """What the socket has not taken yet."""
        self._socket_full = trio.Event()
        self._received = bytearray()
        """Replies, the last one perhaps in part."""
        self._someone_receives = False
        self._others = trio.lowlevel.ParkingLot()
        """Those who wait while somebody else receives."""
        self._failure: str | None = None

    async def names(self) -> list[str]:
        """See `Disk`. Reads on the event loop: it is for start-up, when nothing else runs yet."""
        self._check_usable()
        await trio.lowlevel.checkpoint()
        try:
            found = [path.name for path in self._directory.iterdir() if path.is_file()]
        except OSError as error:
            raise self._fail(f"{self._directory}: {error.strerror}") from None
        return sorted(name for name in found if _is_data_file(name))

    async def read(self, name: str) -> bytes:
        """See `Disk`. Reads on the event loop: it is for start-up, when nothing else runs yet."""
        self._check_usable()
        await trio.lowlevel.checkpoint()
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._fail(f"{self._directory / name}: {error.strerror}") from None

    async def read_part(self, name: str, offset: int, size: int) -> bytes:
        """See `Disk`.

        Read by the writer, in its turn: a disk that hangs must not hold up the event loop.
        """
        size_field = disk_writer.READ_SIZE.pack(size)
        request = self._begin(disk_writer.READ, "read", name, offset, size_field)
        await request
        if request.found is None:
            raise FileNotFoundError(name)
        return request.found

    async def create(self, name: str, size: int) -> None:
        """See `Disk`; a file that exists is an error and makes the disk unusable."""
        await self._begin(disk_writer.CREATE, "create", name, size)

    def write(self, name: str, offset: int, data: bytes) -> Awaitable[None]:
        """See `Disk`; the file must exist. When nobody waits, the write happens all the same."""
        return self._begin(disk_writer.WRITE, "write", name, offset, data)

    async def replace(self, name: str, data: bytes) -> None:
        """See `Disk`."""
        await self._begin(disk_writer.REPLACE, "replace", name, 0, data)

    async def stage(self, name: str, offset: int, data: bytes) -> None:
        """See `Disk`."""
        await self._begin(disk_writer.STAGE, "write a part of", name, offset, data)

    async def publish(self, name: str) -> None:
        """See `Disk`."""
        await self._begin(disk_writer.PUBLISH, "replace", name)

    async def remove(self, name: str) -> None:
        """See `Disk`."""
        await self._begin(disk_writer.REMOVE, "remove", name)

    def _begin(
        self, operation: int, verb: str, name: str, number: int = 0, data: bytes = b""
    ) -> _Request:
        """Send a request from here, without a task switch, unless the socket is full.

        It saves a turn of a busy loop.
        """
        assert "/" not in name, "the directory is flat"
        assert _is_data_file(name), "the lock and temporary files are not for callers"
        self._check_usable()
        encoded = name.encode()
        header = REQUEST.pack(operation, len(encoded), number, len(data))
        request = _Request(self, operation, f"cannot {verb} {self._directory / name}")
        self._waiting.append(request)
        self._outbox.append(memoryview(b"".join((header, encoded, data))))
        self._send_what_fits()
        return request

    async def _keep_sending(
        self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Send what the socket did not take at once, until its scope is cancelled.

        It starts with that scope.

        Shielded from above: a node that is told to stop still votes and acknowledges meanwhile.
        """
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_rest)
                task_status.started(scope)

    def _send_what_fits(self) -> None:
        try:
            while self._outbox:
                sent = self._connection.send(self._outbox[0])
                if sent == len(self._outbox[0]):
                    self._outbox.popleft()
                else:
                    self._outbox[0] = self._outbox[0][sent:]
        except BlockingIOError:
            self._socket_full.set()
        except OSError:
            self._fail(_WRITER_DIED)

    async def _send_rest(self) -> None:
        while True:
            await self._socket_full.wait()
            self._socket_full = trio.Event()
            await trio.lowlevel.wait_writable(self._connection)
            self._send_what_fits()

    async def _wait_for(self, request: _Request) -> None:
        """Return when the reply is there.

        One of those who wait receives for all of them: a task of its own would cost another turn of
        the loop for every commit.
        """
        while not request.answered:
            if self._someone_receives:
                await self._others.park()
                continue
            self._someone_receives = True
            try:
                await trio.lowlevel.wait_readable(self._connection)
                self._receive_replies()
            finally:
                self._someone_receives = False
                self._others.unpark_all()
        if request.failure is not None:
            raise StorageFailed(request.failure)
        if request.operation == disk_writer.WRITE:
            _write_seconds.observe(trio.current_time() - request.since)

    def _receive_replies(self) -> None:
        try:
            received = self._connection.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            received = b""
        if not received:
            self._fail(_WRITER_DIED)
        self._received += received
        while self._failure is None and len(self._received) >= REPLY.size:
            number, size = REPLY.unpack_from(self._received)
            end = REPLY.size + size
            if len(self._received) < end:
                return
            found = bytes(self._received[REPLY.size : end])
            del self._received[:end]
            self._take_reply(number, found)

    def _take_reply(self, number: int, found: bytes) -> None:
        request = self._waiting[0]
        if number and not (number == errno.ENOENT and request.operation == disk_writer.READ):
            reason = found.decode(errors="replace")
            code = errno.errorcode.get(number, str(number))
            self._fail(f"{request.what}: {reason} ({code})")
            return
        self._waiting.popleft()
        request.found = None if number else found
        request.answered = True

    def _fail(self, reason: str) -> StorageFailed:
        """Fail everything from now on; the first reason is the one that is reported."""
        if self._failure is None:
            self._failure = reason
            log.error("the data directory can no longer be used", reason=reason)
        self._outbox.clear()
        while self._waiting:
            request = self._waiting.popleft()
            request.failure = self._failure
            request.answered = True
        return StorageFailed(self._failure)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise StorageFailed(self._failure)


@asynccontextmanager
async def open_disk(directory: Path) -> AsyncIterator[FileDisk]:
    """Make and lock the directory, start its writer, and stop both at the end.

    Raises `StorageLocked` when another process uses the directory, `StorageFailed` when it cannot
    be used at all. What the body raises comes out in an `ExceptionGroup`, as from any nursery.
    *Cancellation* reaches the body first: until it has ended, it can write.
    Resource handling: at the end the writer may finish what it was sent, for at most
    `CLOSE_WAIT_S`, and is killed then. The directory is unlocked when the writer is gone.
    """
    with ExitStack() as resources:
        try:
            lock = await _lock(directory)
            resources.callback(os.close, lock)
            handle = _open_directory(directory)
            resources.callback(os.close, handle)
            ours, theirs = socket.socketpair()
            resources.callback(ours.close)
            ours.setblocking(False)
            with theirs:
                process = await _start_writer(theirs, handle, lock)
        except OSError as error:
            raise StorageFailed(f"cannot use {directory}: {error.strerror}") from None
        disk = FileDisk(directory, process.pid, ours)
        try:
            async with trio.open_nursery() as nursery:
                sending = await nursery.start(disk._keep_sending)
                try:
                    yield disk
                finally:
                    sending.cancel()
        finally:
            disk._failure = disk._failure or "the data directory is closed"
            ours.close()
            await _stop(process)


async def _start_writer(connection: socket.socket, directory: int, lock: int) -> trio.Process:
    # -I -S: nothing of the environment and no site-packages, so that it starts in some 10 ms.
    command = [sys.executable, "-I", "-S", str(disk_writer.__file__), str(directory)]
    try:
        return await trio.lowlevel.open_process(
            command,
            stdin=connection.fileno(),
            stdout=subprocess.DEVNULL,
            pass_fds=(directory, lock),
            # Ctrl-C in a terminal is for the node, which still has to write.
            start_new_session=True,
        )
    except OSError as error:
        raise StorageFailed(
            f"cannot start the process that writes the log, {sys.executable}: {error.strerror}"
        ) from None


async def _stop(process: trio.Process) -> None:
    """Wait until the writer has seen the end of its socket; kill it if that takes too long."""
    with trio.move_on_after(CLOSE_WAIT_S, shield=True):
        await process.wait()
    if process.returncode is None:
        log.error("the process that writes the data directory hangs; killing it", pid=process.pid)
        process.kill()
        # A process that waits for a disk does not die, so this needs a limit, too.
        with trio.move_on_after(_KILL_WAIT_S, shield=True):
            await process.wait()


async def _lock(directory: Path) -> int:
    """Make the directory if need be; return the descriptor of its locked lock file."""
    _make_directory(directory)
    descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = trio.current_time() + PREDECESSOR_WAIT_S
        while not _try_lock(descriptor):
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            if trio.current_time() > deadline or not _has_died(holder):
                process = f"process {holder}" if holder else "another process"
                raise StorageLocked(f"the data directory {directory} is in use by {process}")
            await trio.sleep(_POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _open_directory(directory: Path) -> int:
    """Clear away what an interrupted `replace` left; return a descriptor of the directory."""
    for leftover in directory.glob(f"*{TEMPORARY_SUFFIX}"):
        leftover.unlink()
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _has_died(holder: str) -> bool:
    """Whether the process named in the lock file is gone.

    Then only its writer can hold the lock.
    """
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError):
        return False
    return False


def _is_data_file(name: str) -> bool:
    return name != LOCK_NAME and not name.endswith(TEMPORARY_SUFFIX)
