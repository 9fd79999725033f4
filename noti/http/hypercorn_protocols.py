"""Makes Hypercorn's parsers as strict as the limits say.

Enters: bytes, through Hypercorn. Leaves: requests, or the parsers' own errors, which Hypercorn
answers. Never: a request whose end two servers could see at different places.

Hypercorn makes its parsers itself and has no setting for this, so its names for the two protocols
are replaced, once for the process; nothing else that uses h11 or h2 is changed.
"""

from collections.abc import Callable
from typing import Any

import h11
import hypercorn.protocol
from h11._readers import maybe_read_from_IDLE_client
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol

from noti.http.heads import FIELDS_MAX

FIELD_OVERHEAD_BYTES = 32
"""HTTP/2 counts each header so much longer than it is (RFC 9113, 6.5.2)."""


class _Extracted:
    """A receive buffer's head, for a reader that wants to take it out."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def maybe_extract_lines(self) -> list[bytes]:
        return self._lines


def _read_request(buffer: Any) -> h11.Request | None:
    """Read a request as h11 does; a header that goes on in the next line is an error, as h11 would
    join what others cut (RFC 9112, 5.2).
    """
    lines = buffer.maybe_extract_lines()
    if lines is None:
        return maybe_read_from_IDLE_client(buffer)
    if any(line[:1] in (b" ", b"\t") for line in lines):
        raise h11.LocalProtocolError("a header goes on in the next line")
    extracted: Any = _Extracted(lines)
    return maybe_read_from_IDLE_client(extracted)


class StrictConnection(h11.Connection):
    """h11, where it is lenient."""

    def _get_io_object(self, *args: Any) -> Callable[..., Any] | None:
        reader: Callable[..., Any] | None = super()._get_io_object(*args)
        return _read_request if reader is maybe_read_from_IDLE_client else reader


class StrictH11(H11Protocol):
    """HTTP/1."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection = StrictConnection(
            h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size
        )


class StrictH2(H2Protocol):
    """HTTP/2; a head a little too long is answered by our application, a longer one not read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        overhead_bytes = FIELDS_MAX * FIELD_OVERHEAD_BYTES
        limit_bytes = 2 * self.config.h2_max_header_list_size + overhead_bytes
        self.connection.decoder.max_header_list_size = limit_bytes


def use() -> None:
    """Have Hypercorn use them."""
    names: Any = hypercorn.protocol
    names.H11Protocol, names.H2Protocol = StrictH11, StrictH2
