"""Reads and writes certificate files, with one clear line for whatever a path may turn out to be.

Nothing is half written, written over without being asked, or waited for as a pipe is, unless the
caller says that it may be one.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from noti.errors import ConfigInvalid, LocalError

FILE_BYTES_MAX = 1 << 20
"""The bundle of all public CAs of the web is 220 KiB."""


def read_file(
    path: Path, kind: str = "PEM file", *, may_be_empty: bool = False, may_be_pipe: bool = False
) -> bytes:
    """Return what the file holds; raises `ConfigInvalid` naming the file, the problem, a remedy.

    `kind` is what it should be, in the error. A pipe, if it may be one, is read to its end.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ConfigInvalid(f"{path} is a directory; name the {kind} in it")
        is_pipe = may_be_pipe and stat.S_ISFIFO(found.st_mode)
        if not stat.S_ISREG(found.st_mode) and not is_pipe:
            raise ConfigInvalid(f"{path} is not a regular file; name a {kind}")
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if (size := max(found.st_size, len(content))) > FILE_BYTES_MAX:
            raise ConfigInvalid(
                f"{path} has {size:,} bytes, more than any {kind} of ours; name another"
            )
    except OSError as error:
        raise ConfigInvalid(
            f"{path} cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    if not content.strip() and not may_be_empty:
        raise ConfigInvalid(f"{path} is empty; put a {kind} there")
    return content


def can_be_read_by_others(path: Path) -> bool:
    """Whether every user of this machine can read a file; false if nobody here can tell.

    A directory or a device is no file. That its group can is usual in Kubernetes, where nobody
    else is in it.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o004)


def is_private(path: Path) -> bool:
    """Whether only the owner can read a file."""
    return not path.stat().st_mode & 0o077


def write_file(path: Path, content: bytes, *, private: bool, replace: bool = False) -> None:
    """Write a file as `whole_file` does."""
    with whole_file(path, private=private, replace=replace) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path, *, private: bool, replace: bool = False) -> Iterator[BinaryIO]:
    """Yield what becomes the file when the body ends well: mode 0600 if `private`, otherwise 0644.

    Raises `LocalError` when it exists (unless `replace`, and it is a file), or cannot be written.
    """
    if not path.name or (path.exists() and not path.is_file()):
        raise LocalError(f"{path} is no file that could be replaced; name another")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "xb", opener=_opener(0o600 if private else 0o644)) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if replace:
                    beside.replace(path)
                else:
                    os.link(beside, path)  # unlike a rename, fails when the name is taken
            finally:
                beside.unlink(missing_ok=True)
    except FileExistsError:
        raise LocalError(f"{path} exists and is kept; choose another directory or name") from None
    except OSError as error:
        raise LocalError(f"{path} cannot be written: {error.strerror}") from None


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda path, flags: os.open(path, flags, mode)
