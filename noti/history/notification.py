"""What a publisher sends and what a browser sees.

Enters: data of events. Leaves: the values `Event` (not yet ordered) and `Notification` (numbered by
the store); the lines of data that an event stream carries, and what they take in bytes.
Never: encoding for disk or wire, I/O, clocks; an exception but `UnicodeEncodeError` for text that
has no bytes.

Both are named tuples, as every node makes one of each for every event: a frozen dataclass takes
four times as long to make.

A line of data ends with CR, LF or CRLF (WHATWG HTML 9.2.5), and each becomes a `data:` line of its
own, so that data of nothing but line ends takes seven times its size. What limits data and
what frames it must count alike.
"""

import re
from typing import Final, NamedTuple

PREFIX: Final = "data: "
"""Begins each line of data in a stream."""

_END: Final = re.compile(r"\r\n|\r|\n")


class Event(NamedTuple):
    """Something that happened, as the leader wrote it into a command; not numbered yet."""

    source_seq: int
    """Sequence in the source's stream; strictly increasing within one stream. 0 for an event that
    came from a publisher, not from a stream."""
    id: str
    """Publisher's id if it gave one, otherwise made by the leader.

    Short, ASCII, no control characters.
    """
    topics: tuple[str, ...]
    """First is canonical. For JetStream: the subject."""
    data: str
    """What a browser gets: for category messages one line of JSON."""
    created_ms: int
    """Wall time in milliseconds since 1970 at which the publisher made it."""
    type: str = ""
    """The name by which a page listens for it (`event:` in a stream); empty for none."""
    retry_ms: int = 0
    """How long a reader that has got it waits before it connects again; 0 says nothing."""
    private: bool = False
    """Whether only readers whose token names one of its topics see it."""
    idempotency_key: str = ""
    """What the publisher tells retries by, besides the id; empty for none."""
    trace: str = ""
    """The trace that it belongs to (`noti.history.traceparent`); empty for none.

    It is in the log, and in no snapshot: it is of use only while the event is on its way.
    """


class Notification(NamedTuple):
    """An event in its final place: the same `seq` on every node."""

    seq: int
    """1, 2, 3, … without gaps, in commit order."""
    id: str
    topics: tuple[str, ...]
    data: str
    created_ms: int
    type: str = ""
    retry_ms: int = 0
    private: bool = False


def lines_of(data: str) -> list[str]:
    """Return the lines of `data`, without their ends; one at least."""
    if "\n" not in data and "\r" not in data:
        return [data]  # as nearly always; it is asked for every event, on every node
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
