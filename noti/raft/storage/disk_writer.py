"""The process that writes and syncs files for one node.

It takes requests from standard input, a socket, and answers each on the same socket, in the same
order. It imports nothing that makes it slow to start.

It is a process of its own because a thread is starved by a busy event loop: measured on CPython
3.11, one write and sync through a thread took 7 s while the loop ran in slices of 1 ms, and 2 ms
through this process. It ends when the socket ends, which the kernel guarantees whatever happened to
the parent, and ignores the signals that ask a whole process group to stop, because the node still
writes while it shuts down.

After one failed write or sync every later request fails: the kernel may have marked the lost pages
as clean, so a retry that succeeds would prove nothing ("Can Applications Recover from fsync
Failures?", ATC 2020).
"""

import errno
import os
import signal
import struct
import sys

WRITE, CREATE, REPLACE, REMOVE, READ, STAGE, PUBLISH = range(1, 8)
"""Operations. Plain integers, because `enum` would be a good part of the start-up time."""

REQUEST = struct.Struct("<BBQI")
"""Operation, bytes of the name, offset (`WRITE`, `READ`, `STAGE`) or size (`CREATE`), bytes of
data; then name and data. The data of `READ` says how much to read."""

READ_SIZE = struct.Struct("<I")

REPLY = struct.Struct("<iI")
"""`errno`, or 0 for success; bytes of what follows: of what was read, or of a text that
explains."""

TEMPORARY_SUFFIX = ".tmp"
"""Added to a name while its replacement is being written; what a crash leaves under such a name is
rubbish."""

_ZEROES = bytes(1024 * 1024)
"""Real zeroes, not `fallocate`: syncing into unwritten extents costs 1.5 times as much as into
written ones."""

_OPEN_FILES_MAX = 8
"""Descriptors kept open: the log segment in use and a few others; there is nothing to gain from
more."""

_SOCKET = 0


class Writer:
    """Performs requests on the files of one directory."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._open_files: dict[str, int] = {}

    def perform(self, operation: int, name: str, number: int, data: bytes) -> bytes:
        """Do one request; what it did is durable on return.

        Returns what was read. Raises `OSError`.
        """
        if operation == READ:
            return self._read(name, number, *READ_SIZE.unpack(data))
        if operation == WRITE:
            self._write(name, number, data)
        elif operation == CREATE:
            self._create(name, number)
        elif operation == REPLACE:
            self._replace(name, data)
        elif operation == REMOVE:
            self._remove(name)
        elif operation == STAGE:
            self._stage(name, number, data)
        elif operation == PUBLISH:
            self._publish(name)
        else:
            raise AssertionError(f"unknown operation {operation}")
        return b""

    def _read(self, name: str, offset: int, size: int) -> bytes:
        descriptor = self._open_files.get(name)
        if descriptor is not None:
            return os.pread(descriptor, size, offset)
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def _write(self, name: str, offset: int, data: bytes) -> None:
        descriptor = self._open_files.get(name)
        if descriptor is None:
            descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._directory)
            self._keep(name, descriptor)
        self._pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)

    def _pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        written = os.pwrite(descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)

    def _create(self, name: str, size: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._directory)
        self._keep(name, descriptor)
        while size > 0:
            size -= os.write(descriptor, memoryview(_ZEROES)[:size])
        os.fsync(descriptor)
        os.fsync(self._directory)

    def _replace(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        temporary = name + TEMPORARY_SUFFIX
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._directory)
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, memoryview(data)[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._rename(temporary, name)

    def _stage(self, name: str, offset: int, data: bytes) -> None:
        temporary = name + TEMPORARY_SUFFIX
        descriptor = self._open_files.get(temporary)
        if offset == 0 or descriptor is None:
            self._forget(temporary)
            begin = os.O_CREAT | os.O_TRUNC if offset == 0 else 0
            flags = os.O_RDWR | os.O_CLOEXEC | begin
            descriptor = os.open(temporary, flags, 0o600, dir_fd=self._directory)
            self._keep(temporary, descriptor)
        self._pwrite(descriptor, data, offset)
        # This has the kernel begin to write now, and waits for nothing: to sync each part would
        # hold up the writes behind it, and to sync all of it at the end even more so.
        os.posix_fadvise(descriptor, offset, len(data), os.POSIX_FADV_DONTNEED)

    def _publish(self, name: str) -> None:
        temporary = name + TEMPORARY_SUFFIX
        descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._forget(temporary)
        self._rename(temporary, name)

    def _rename(self, temporary: str, name: str) -> None:
        os.rename(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._forget(name)
        os.fsync(self._directory)

    def _remove(self, name: str) -> None:
        self._forget(name)
        try:
            os.unlink(name, dir_fd=self._directory)
        except FileNotFoundError:
            return
        os.fsync(self._directory)

    def _keep(self, name: str, descriptor: int) -> None:
        self._open_files[name] = descriptor
        if len(self._open_files) > _OPEN_FILES_MAX:
            self._forget(next(iter(self._open_files)))

    def _forget(self, name: str) -> None:
        descriptor = self._open_files.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)


def serve(writer: Writer) -> None:
    """Answer requests until the socket ends; raises `EOFError` or `ConnectionError` then."""
    failure = b""
    failure_number = 0
    while True:
        header = _read_exactly(REQUEST.size)
        operation, name_size, number, data_size = REQUEST.unpack(header)
        body = _read_exactly(name_size + data_size)
        found = b""
        if not failure_number:
            try:
                name = body[:name_size].decode()
                found = writer.perform(operation, name, number, body[name_size:])
            except OSError as error:
                failure_number = error.errno or -1
                failure = (error.strerror or str(error)).encode()
        _write_all(REPLY.pack(failure_number, len(failure or found)) + (failure or found))
        if operation == READ and failure_number == errno.ENOENT:
            failure, failure_number = b"", 0  # that is an answer, and nothing was lost


def _read_exactly(size: int) -> bytes:
    chunk = os.read(_SOCKET, size) if size else b""
    if len(chunk) == size:  # nearly always: one system call, one copy
        return chunk
    data = bytearray(size)
    view = memoryview(data)
    received = 0
    while True:
        view[received : received + len(chunk)] = chunk
        received += len(chunk)
        if received == size:
            return bytes(data)
        chunk = os.read(_SOCKET, size - received)
        if not chunk:
            raise EOFError


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(_SOCKET, data) :]


def main(arguments: list[str]) -> None:
    """Serve until the parent is gone. One argument: the inherited descriptor of the directory."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    writer = Writer(int(arguments[0]))
    try:  # noqa: SIM105 - `contextlib` costs start-up time
        serve(writer)
    except (EOFError, ConnectionError):
        pass  # the parent closed its end, or is dead; all that it asked for before that is done


if __name__ == "__main__":
    main(sys.argv[1:])
