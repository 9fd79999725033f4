"""Reads certificate files, with one clear line for whatever a path may turn out to be.

Enters: paths. Leaves: bytes. Never: a wait for a pipe, more than 1 MiB, the content of a key in a
message.
"""

import stat
from pathlib import Path

from noti.errors import ConfigInvalid

FILE_BYTES_MAX = 1 << 20
"""The bundle of all public CAs of the web is 220 KiB."""


def read_file(path: Path) -> bytes:
    """Return what the file holds; raises `ConfigInvalid` naming the file, the problem, a remedy."""
    try:
        kind = path.stat()
        if stat.S_ISDIR(kind.st_mode):
            raise ConfigInvalid(f"{path} is a directory; name the PEM file in it")
        if not stat.S_ISREG(kind.st_mode):
            raise ConfigInvalid(f"{path} is not a regular file; name a PEM file")
        if kind.st_size > FILE_BYTES_MAX:
            raise ConfigInvalid(
                f"{path} has {kind.st_size:,} bytes, more than any PEM file of ours; name another"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(
            f"{path} cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    if not content.strip():
        raise ConfigInvalid(f"{path} is empty; put a PEM file there")
    return content
