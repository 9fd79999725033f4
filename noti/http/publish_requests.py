"""Cuts what comes on a connection into requests to publish.

Enters: bytes, as they come. Leaves: heads, each with its body behind it; or that the next request
is for somebody else.
Never: sockets, what a request means, more bytes than were fed and not yet taken.

The same head comes again and again on a connection that is kept: it is parsed once.
"""

from enum import Enum
from typing import Final

from noti.history.topics import RESERVED
from noti.http.heads import END, HeadState, RequestHead, RequestRejection, too_long

START: Final = f"POST {RESERVED}".encode()
_LENGTH_DIGITS_MAX: Final = 15
_FOLDS: Final = (b"\r\n ", b"\r\n\t")


class Cut(Enum):
    """Why there is no head."""

    MORE = "more"
    """It is not complete."""
    ELSEWHERE = "elsewhere"
    """The next request is not for here."""


def wants_to_publish(head: RequestHead) -> bool:
    """Whether a request can go the short way; what is unusual about it goes the other."""
    received = head.received
    length = head.header("content-length")
    return (
        received.startswith(START)
        and head.method == "POST"
        and head.version == "1.1"
        and head.path == RESERVED
        and head.hosts == 1
        and bool(head.header("host"))
        and (not length or (length.isascii() and length.isdigit()))
        and len(length) <= _LENGTH_DIGITS_MAX
        and not head.header("transfer-encoding")
        and not head.header("upgrade")
        # The next line of such a header is another header to other servers (RFC 9112, 5.2).
        and not any(fold in received for fold in _FOLDS)
    )


def body_bytes(head: RequestHead) -> int:
    """Return the length of the body behind a head that `wants_to_publish`."""
    return int(head.header("content-length") or 0)


class PublishRequests:
    """The requests of one connection, one behind the other."""

    def __init__(self, head_bytes_max: int) -> None:
        self._head_bytes_max = head_bytes_max
        self.waiting = bytearray()
        """What came and was not taken; for others to look at."""
        self._searched = 0
        """Before this there is no end of a head."""
        self._known = b""
        self._known_head = RequestHead()
        """The last head, as bytes and as read."""

    def feed(self, data: bytes) -> None:
        """Take more bytes in."""
        self.waiting += data

    def take_head(self) -> RequestHead | RequestRejection | Cut:
        """Return the next request's head, if it is complete and for here.

        Its body is to be taken, or dropped, before the next head.
        """
        buffer = self.waiting
        if not buffer:
            return Cut.MORE
        if self._known and buffer.startswith(self._known):
            del buffer[: len(self._known)]
            return self._known_head
        if not START.startswith(buffer[: len(START)]):
            return Cut.ELSEWHERE
        end = buffer.find(END, max(0, self._searched - len(END) + 1))
        if end < 0:
            self._searched = len(buffer)
            too_many = len(buffer) > self._head_bytes_max
            return too_long(self._head_bytes_max) if too_many else Cut.MORE
        raw = bytes(buffer[: end + len(END)])
        head = RequestHead()
        state = head.feed(raw)
        if (rejection := head.excess(self._head_bytes_max)) is not None:
            return rejection
        if state is not HeadState.COMPLETE or not wants_to_publish(head):
            return Cut.ELSEWHERE
        del buffer[: len(raw)]
        self._searched = 0
        self._known, self._known_head = raw, head
        return head

    def take_body(self, size_bytes: int) -> bytes | None:
        """Return so many bytes once they are there, None before."""
        if len(self.waiting) < size_bytes:
            return None
        body = bytes(self.waiting[:size_bytes])
        del self.waiting[:size_bytes]
        return body

    def drop(self, size_bytes: int) -> int:
        """Forget up to so many bytes; return how many are still to come."""
        dropped = min(size_bytes, len(self.waiting))
        del self.waiting[:dropped]
        return size_bytes - dropped

    def take_rest(self) -> bytes:
        """Return all that waits."""
        rest = bytes(self.waiting)
        self.waiting.clear()
        return rest
