"""Hypercorn's two protocols, stricter than they are, and with event streams sent past its queues.

With `hypercorn_glue.py`, the only module that uses what Hypercorn, h11 and h2 do not promise to
keep: h11's buffer, h2's decoder and settings, and how Hypercorn begins a request and hears of
windows (`test_strict_parsers.py` names whichever is gone).
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, cast

import h11
import trio
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PriorityUpdated, RequestReceived, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h11._receivebuffer import ReceiveBuffer
from hypercorn.events import Closed, RawData
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import AppWrapper, Scope
from prometheus_client import Counter

from noti.http import heads
from noti.http.http2_limits import Http2Limits, why_malformed
from noti.http.http2_streams import Http2Streams
from noti.http.stream_routes import SENDER

INVALID = Counter("noti_http_requests_invalid_total", "Requests that are not HTTP.")
FLOODS = Counter(
    "noti_http2_floods_total",
    "HTTP/2 connections closed for a flood of resets, headers or frames without content.",
)

FIELD_OVERHEAD_BYTES = 32
"""HTTP/2 counts each header so much longer than it is (RFC 9113, 6.5.2)."""


class _StrictBuffer(ReceiveBuffer):
    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines of a head as h11 does, which may not go on in the next line.

        Such a header is an error, as h11 would join what others cut (RFC 9112, 5.2).
        """
        lines = super().maybe_extract_lines()
        if any(line.startswith((b" ", b"\t")) for line in lines or ()):
            raise h11.LocalProtocolError("a header goes on in the next line")
        return lines


class StrictConnection(h11.Connection):
    """h11, without its leniency: no request whose end two servers could see at different places."""

    def __init__(self, head_bytes_max: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=head_bytes_max)
        self._receive_buffer = _StrictBuffer()

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what comes next, but nothing of what stands behind a connection's last request.

        h11 makes an error of it, upon which Hypercorn closes before that request is answered. Some
        clients end a body with an empty line.
        """
        if self.their_state is h11.MUST_CLOSE and self._receive_buffer:
            self._receive_buffer = _StrictBuffer()
        return super().next_event()


class StrictH11(H11Protocol):
    """HTTP/1."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection = StrictConnection(self.config.h11_max_incomplete_size)


class _Unsent(RawData):
    """What is to be sent over HTTP/2, taken out of h2 only when it is its turn to be written."""

    def __init__(self, connection: H2Connection) -> None:
        object.__setattr__(self, "_connection", connection)

    @property
    def data(self) -> bytes:
        """All that is unsent now."""
        connection: H2Connection = vars(self)["_connection"]
        return connection.data_to_send()


class StrictH2(H2Protocol):
    """HTTP/2; a head a little too long is answered by our application, a longer one not read.

    Event streams are sent past Hypercorn's queues, from one task for all of a connection.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        overhead_bytes = heads.FIELDS_MAX * FIELD_OVERHEAD_BYTES
        limit_bytes = 2 * self.config.h2_max_header_list_size + overhead_bytes
        self.connection.decoder.max_header_list_size = limit_bytes
        # A browser would ask here for a WebSocket, and for no other connection (RFC 8441).
        known = self.connection.local_settings.items()
        offered = {SettingCodes(code): value for code, value in known}
        offered.pop(SettingCodes.ENABLE_CONNECT_PROTOCOL, None)
        self.connection.local_settings = Settings(client=False, initial_values=offered)
        self._head_bytes_max = limit_bytes
        self._limits = Http2Limits()
        self._event_streams = Http2Streams(self, lambda run: self.task_group.spawn(run))

    async def _handle_events(self, events: list[Event]) -> None:
        """Pass on what the client has sent, unless it is a flood."""
        unfinished: Any = self.connection.incoming_buffer._headers_buffer
        head_bytes = sum(len(frame.data) for frame in unfinished)
        bears = self._limits.bears(events, trio.current_time())
        if head_bytes > self._head_bytes_max or not bears:
            FLOODS.inc()
            self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            await self._flush()
            await self.send(Closed())
            return
        reset = {event.stream_id for event in events if isinstance(event, StreamReset)}
        # Lazily: which streams there are changes from one event to the next.
        await super()._handle_events(cast("Any", self._passed_on(events, reset)))

    def _passed_on(self, events: list[Event], reset: set[int]) -> Iterator[Event]:
        """Leave out what Hypercorn fails at, or would begin for nothing."""
        for event in events:
            match event:
                case RequestReceived(stream_id=int(stream_id)):
                    if stream_id in reset:
                        continue
                    if why_malformed(event) is not None:
                        INVALID.inc()
                        self.connection.reset_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)
                        continue
                case DataReceived(stream_id=int(stream_id)) if stream_id not in self.streams:
                    # The rest of a request that was answered already.
                    length = event.flow_controlled_length or 0
                    self.connection.acknowledge_received_data(length, stream_id)
                    continue
                case PriorityUpdated():
                    continue  # Obsolete (RFC 9113, 5.3.2), and a tree that others can fill.
                case _:
                    pass
            yield event

    async def _create_stream(self, request: RequestReceived) -> None:
        app, self.app = self.app, partial(self._with_sender, self.app, request.stream_id)
        try:
            await super()._create_stream(request)
        finally:
            self.app = app

    async def _with_sender(self, app: AppWrapper, stream_id: int, scope: Scope, *args: Any) -> None:
        if scope["type"] == "http":
            sender = partial(self._event_streams.send, stream_id)
            cast("dict[str, object]", scope["extensions"])[SENDER] = sender
        await app(scope, *args)

    async def _window_updated(self, stream_id: int | None) -> None:
        await super()._window_updated(stream_id)
        self._event_streams.wake()

    # As `Http2Connection`

    def window_bytes(self, stream_id: int) -> int:
        """Return how much may be sent on a stream now."""
        try:
            window_bytes = self.connection.local_flow_control_window(stream_id)
        except (ProtocolError, KeyError):
            return 0
        return min(window_bytes, self.connection.max_outbound_frame_size)

    def shared_window_bytes(self) -> int:
        """Return how much may be sent on all streams together now."""
        return self.connection.outbound_flow_control_window

    def put(self, stream_id: int, data: bytes, *, ends: bool = False) -> None:
        """Have data sent with the next flush; nothing on a stream that is closed.

        Streams are ended here, as Hypercorn may close a connection before it has ended the last
        one.
        """
        with suppress(ProtocolError):
            self.connection.send_data(stream_id, data, end_stream=ends)

    async def flush(self) -> None:
        """Send what was put."""
        await self._flush()

    async def _flush(self) -> None:
        """Send what h2 has, as Hypercorn does, which takes it out before it waits for its turn.

        A task that is cancelled there, as its request was reset, would lose what others have put:
        heads of streams too, without which nothing that follows can be read (RFC 7541, 2.2).
        """
        await self.send(_Unsent(self.connection))

    async def reset(self, stream_id: int) -> None:
        """End a stream without its last words."""
        with suppress(ProtocolError):
            self.connection.reset_stream(stream_id, ErrorCodes.CANCEL)
        await self._flush()
        await self._close_stream(stream_id)
