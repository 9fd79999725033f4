"""Reads the head of an HTTP/1.1 request, and writes the heads of responses.

Enters: bytes, as they come; headers. Leaves: a request's head when it is complete; bytes.
Never: sockets, bodies, what a request means.

Sources: RFC 9112 (HTTP/1.1); llhttp, Node's parser, through httptools.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from typing import Final, TypeAlias

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

Headers: TypeAlias = list[tuple[str, str]]
"""Of a response: names and values."""


class HeadState(Enum):
    """What came of the bytes so far."""

    MORE = "more"
    """The head is not complete."""
    COMPLETE = "complete"
    FOREIGN = "foreign"
    """This is no HTTP/1 request."""


@dataclass(frozen=True, slots=True)
class RequestRejection:
    """What a request is rejected with: it is invalid, or there is no room for its connection."""

    status: int
    text: str


BAD_REQUEST: Final = RequestRejection(
    400, "This is not a request that this server understands: it speaks HTTP/1.1 and HTTP/2."
)

NO_WEBSOCKET: Final = RequestRejection(
    501, "There are WebSockets at /.well-known/mercure and /category only, over HTTP/1.1."
)

END: Final = b"\r\n\r\n"
LINE_OVERHEAD: Final = len(b"  HTTP/1.1" + END)

FIELDS_MAX: Final = 256
"""Browsers send about 20, proxies add some; each costs more than its bytes."""


def too_long(bytes_max: int) -> RequestRejection:
    """Return the rejection of a head of more than `bytes_max` bytes."""
    text = f"The head of this request is longer than {bytes_max} bytes (--head-bytes-max)."
    return RequestRejection(431, f"{text} Of topics, name fewer or shorter ones.")


TOO_MANY_FIELDS: Final = RequestRejection(
    431, f"This request has more than {FIELDS_MAX} header fields."
)


def why_head_invalid(
    version: str, line_bytes: int, headers: Sequence[tuple[bytes, bytes]], bytes_max: int
) -> RequestRejection | None:
    """Return what is invalid in a request that a parser let pass.

    `line_bytes` is the length of its method and target, names of headers are in lower case. Two
    servers that read such a request differently let one client smuggle requests into the
    connection of another (RFC 9112, 3.2, 6.1 and 11.2).
    """
    if len(headers) > FIELDS_MAX:
        return TOO_MANY_FIELDS
    size = line_bytes + LINE_OVERHEAD + sum(len(name) + len(value) + 4 for name, value in headers)
    if size > bytes_max:
        return too_long(bytes_max)
    named = [name for name, _ in headers]
    if b"transfer-encoding" in named:
        if b"content-length" in named:
            return RequestRejection(400, "Content-Length and Transfer-Encoding do not go together.")
        if version != "1.1":
            return RequestRejection(400, "Only HTTP/1.1 has Transfer-Encoding.")
    lengths = {value.strip() for name, value in headers if name == b"content-length"}
    if len(lengths) > 1:
        return RequestRejection(400, "This request has two values of Content-Length.")
    hosts = named.count(b"host")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return RequestRejection(400, "A request has one Host header.")
    return None


class RequestHead:
    """The first request of a connection, fed until its head is complete."""

    __slots__ = (
        "_bytes",
        "_headers",
        "_parser",
        "_target",
        "fields",
        "hosts",
        "method",
        "path",
        "query",
        "reading",
        "version",
    )

    def __init__(self) -> None:
        self._parser = HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._bytes = bytearray()
        self.fields = 0
        """How many headers there are."""
        self.hosts = 0
        """How many of them are Host."""
        self.method = ""
        self.path = ""
        """The target up to the question mark, as it was sent."""
        self.query = ""
        """The target after the question mark, as it was sent."""
        self.version = ""
        self.reading = HeadState.MORE

    def __len__(self) -> int:
        """Return how many bytes came."""
        return len(self._bytes)

    @property
    def received(self) -> bytes:
        """All that came, also what came behind the head."""
        return bytes(self._bytes)

    @property
    def ends_received(self) -> bool:
        """Whether nothing came behind the head, which is complete."""
        return self._bytes.find(END) == len(self._bytes) - len(END)

    def feed(self, data: bytes) -> HeadState:
        """Take more bytes in; only to be called while the answer is `MORE`."""
        self._bytes += data
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.reading = HeadState.COMPLETE
        except HttpParserError:
            # What follows the first request is not ours to judge.
            if self.reading is HeadState.MORE:
                self.reading = HeadState.FOREIGN
        return self.reading

    def lacks(self, names: frozenset[bytes]) -> bool:
        """Return whether there is none of these headers, whose names are in lower case."""
        return names.isdisjoint(self._headers)

    def header(self, name: str) -> str:
        """Return a header's value by its lower-case name; empty when there is none.

        Several are joined by commas (RFC 9110 5.2), those of Cookie by semicolons.
        """
        return self._headers.get(name.encode(), b"").decode("latin-1")

    def excess(self, bytes_max: int) -> RequestRejection | None:
        """Return that the head is too long, as soon as it is; others judge what is foreign."""
        if self.reading is HeadState.FOREIGN:
            return None
        if self.fields > FIELDS_MAX:
            return TOO_MANY_FIELDS
        if len(self._bytes) <= bytes_max:
            return None
        if self.reading is HeadState.COMPLETE and 0 <= self._bytes.find(END) <= bytes_max - len(
            END
        ):
            return None
        return too_long(bytes_max)

    # The parser calls these.

    def on_url(self, data: bytes) -> None:
        """Take a piece of the target."""
        if self.reading is HeadState.MORE:
            self._target += data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if self.reading is not HeadState.MORE:
            return
        self.fields += 1
        if self.fields > FIELDS_MAX:
            return
        name = name.lower()
        if name == b"host":
            self.hosts += 1
        known = self._headers.get(name)
        separator = b"; " if name == b"cookie" else b", "
        self._headers[name] = value if known is None else known + separator + value

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        if self.reading is HeadState.MORE:
            self.method = self._parser.get_method().decode("latin-1")
            self.version = self._parser.get_http_version()
            self.path, _, self.query = self._target.decode("latin-1").partition("?")
            self.reading = HeadState.COMPLETE


@lru_cache(maxsize=64)
def response_head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return a response's status line and headers, to be followed by its body.

    Of clients that come in the same second, most get the same.

    Values come from this server, or were checked to be printable: none of them can hold a newline.
    They are sent as UTF-8, in which ids may be.
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name.lower()}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@lru_cache(maxsize=64)
def rejection_response(
    rejection: RequestRejection, headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """Return the whole response to a request that is rejected for its head or for want of room."""
    body = f"{rejection.text}\n".encode()
    fields = (
        *headers,
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    )
    return response_head(rejection.status, fields) + body


BUSY: Final = RequestRejection(
    503, "This node has as many connections as it may have. Come back in a moment."
)
BUSY_FOR_YOU: Final = RequestRejection(
    429, "Your address has as many connections as one may have. Close some, or use them again."
)
RETRY_AFTER: Final = (("Retry-After", "1"),)
"""Requests take milliseconds: there will be room soon."""
