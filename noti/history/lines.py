"""Cuts an event's data into the lines that an event stream carries, and counts what they take.

Enters: texts. Leaves: lines, sizes in bytes. Never: I/O; an exception but `UnicodeEncodeError` for
text that has no bytes.

A line ends with CR, LF or CRLF (WHATWG HTML 9.2.5), and each becomes a `data:` line of its own, so
that data of nothing but line ends takes seven times its size. Whoever limits data and whoever
frames it must count alike.
"""

import re
from typing import Final

PREFIX: Final = "data: "
"""Begins each line of data in a stream."""

_END: Final = re.compile(r"\r\n|\r|\n")


def lines_of(data: str) -> list[str]:
    """Return the lines of `data`, without their ends; one at least."""
    return _END.split(data)


def sent_bytes(data: str) -> int:
    """Return what `data` takes in a stream, in bytes: with a `PREFIX` for each line but the first.

    That of the first is part of what any event takes, like its id.
    """
    size_bytes = byte_length(data)
    if "\n" in data or "\r" in data:
        crlf = data.count("\r\n")
        size_bytes += len(PREFIX) * (data.count("\n") + data.count("\r") - crlf) - crlf
    return size_bytes


def byte_length(text: str) -> int:
    """Return how many bytes `text` takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
