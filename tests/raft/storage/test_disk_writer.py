"""The writer of the data directory leaves nothing that a power cut could undo, and never retries.

What the kernel has not been asked to sync is counted here as lost: this fails when any sync, of a
file or of the directory, is left out or comes too late.
"""

import errno
import os
import socket
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from noti.raft.storage import disk_writer
from noti.raft.storage.disk_writer import CREATE, REMOVE, REPLACE, REPLY, REQUEST, WRITE, Writer
from tests import promises


class Kernel:
    """The module `os`, which remembers what a power cut would undo."""

    def __init__(self) -> None:
        self.at_risk: set[int] = set()
        """Inodes of files and directories that were changed and not synced."""
        self.calls: Counter[str] = Counter()
        self.failing = ""
        """Name of a call that fails from now on."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if name == self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int) -> int:
        descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT:
            self._changed(dir_fd)
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            self._call("write")
            self._changed(descriptor)
        return os.write(descriptor, data)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        self._call("write")
        self._changed(descriptor)
        return os.pwrite(descriptor, data, offset)

    def fsync(self, descriptor: int) -> None:
        self._call("sync")
        self.at_risk.discard(os.fstat(descriptor).st_ino)

    fdatasync = fsync

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        inode = os.stat(old, dir_fd=src_dir_fd).st_ino
        assert inode not in self.at_risk, "a name must not lead to content that may be lost"
        os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        self._changed(dst_dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)
        self._changed(dir_fd)

    def _changed(self, descriptor: int) -> None:
        self.at_risk.add(os.fstat(descriptor).st_ino)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(disk_writer, "os", kernel)
    return kernel


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))


@promises.ONE_WRITE_ONE_SYNC
def test_what_is_done_survives_a_power_cut_file_and_name(kernel: Kernel, writer: Writer) -> None:
    for request in (
        (CREATE, "log", 4096, b""),
        (WRITE, "log", 10, b"frame"),
        (REPLACE, "snapshot", 0, b"first"),
        (REPLACE, "snapshot", 0, b"second"),
        (REMOVE, "log", 0, b""),
    ):
        before = kernel.calls["sync"]
        writer.perform(*request)
        assert kernel.at_risk == set(), request
        assert kernel.calls["sync"] > before


@promises.ONE_WRITE_ONE_SYNC
def test_one_write_is_one_sync(kernel: Kernel, writer: Writer) -> None:
    writer.perform(CREATE, "log", 4096, b"")
    before = kernel.calls["sync"]
    writer.perform(WRITE, "log", 0, bytes(3000))
    assert kernel.calls["sync"] - before == 1


@promises.FULL_DISK_ENDS_NODE
@pytest.mark.parametrize("failing", ["sync", "write"])
def test_after_a_failure_the_file_is_never_touched_again(
    kernel: Kernel, writer: Writer, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The second sync of lost pages succeeds and proves nothing; here all would succeed."""
    writer.perform(CREATE, "log", 4096, b"")
    kernel.failing = failing
    kernel.calls.clear()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr(disk_writer, "_SOCKET", theirs.fileno())
        for operation in (WRITE, WRITE, REPLACE):
            ours.sendall(REQUEST.pack(operation, 3, 0, 1) + b"log" + b"x")
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            disk_writer.serve(writer)
        answer = REPLY.pack(errno.EIO, len(os.strerror(errno.EIO))) + b"Input/output error"
        assert ours.recv(4096) == 3 * answer
    assert kernel.calls[failing] == 1
