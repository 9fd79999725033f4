"""Reads the head of an HTTP/1.1 request, and writes the heads of responses.

Enters: bytes, as they come; headers. Leaves: a request's head when it is complete; bytes.
Never: sockets, bodies, what a request means.

Sources: RFC 9112 (HTTP/1.1); llhttp, Node's parser, through httptools.
"""

from enum import Enum
from functools import lru_cache
from http import HTTPStatus

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser


class Reading(Enum):
    """What came of the bytes so far."""

    MORE = "more"
    """The head is not complete."""
    COMPLETE = "complete"
    FOREIGN = "foreign"
    """This is no HTTP/1 request."""


class RequestHead:
    """The first request of a connection, fed until its head is complete."""

    __slots__ = ("_headers", "_parser", "_target", "bytes", "method", "reading", "version")

    def __init__(self) -> None:
        self._parser = HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self.bytes = b""
        """All that came, also what came behind the head."""
        self.method = ""
        self.version = ""
        self.reading = Reading.MORE

    def feed(self, data: bytes) -> Reading:
        """Take more bytes in; only to be called while the answer is `MORE`."""
        self.bytes += data
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.reading = Reading.COMPLETE
        except HttpParserError:
            # What follows the first request is not ours to judge.
            if self.reading is Reading.MORE:
                self.reading = Reading.FOREIGN
        return self.reading

    @property
    def path(self) -> str:
        """The target up to the question mark, as it was sent."""
        return self._target.partition(b"?")[0].decode("latin-1")

    @property
    def query(self) -> str:
        """The target after the question mark, as it was sent."""
        return self._target.partition(b"?")[2].decode("latin-1")

    def header(self, name: str) -> str:
        """Return a header's value by its lower-case name, several joined by commas (RFC 9110 5.2);
        empty when there is none.
        """
        return self._headers.get(name.encode(), b"").decode("latin-1")

    # The parser calls these.

    def on_url(self, data: bytes) -> None:
        """Take a piece of the target."""
        if self.reading is Reading.MORE:
            self._target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if self.reading is Reading.MORE:
            name = name.lower()
            known = self._headers.get(name)
            self._headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        if self.reading is Reading.MORE:
            self.method = self._parser.get_method().decode("latin-1")
            self.version = self._parser.get_http_version()
            self.reading = Reading.COMPLETE


@lru_cache(maxsize=64)
def response_head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return a response's status line and headers, to be followed by its body. Of clients that come
    in the same second, most get the same.

    Values come from this server, or were checked to be printable: none of them can hold a newline.
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
