"""HTTP/2 connections of gRPC: grpclib's, with what it lacks; asyncio.

grpclib reads messages of any length that the sender announces (up to 4 GiB), loses its place when a
read is cancelled, ends connections that are healthy, and hides what it is built on. The subclasses
here are made of its public classes and of h2's public interface, so that the rest of this room
needs no private name of either:

- what comes from a peer shows that it lives, not only the answer to a ping, which may stand behind
  megabytes of data (so does gRPC's own core);
- a frame of a type that is not known is skipped (RFC 9113, 5.5); grpclib ends the connection;
- what violates HTTP/2 is reported, not only answered with the end of the connection;
- a message can be written without a turn of the loop, and read in the turn that brought it.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final, cast

from grpclib.config import Configuration
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import (
    AbstractHandler,
    Connection,
    EventsProcessor,
    H2Protocol,
    Peer,
    Stream,
)
from grpclib.utils import Wrapper
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, UnknownFrameReceived
from h2.exceptions import ProtocolError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, Frame

from noti.rpc.inbox import Inbox, prefixed

FRAME_BYTES_MAX: Final = 1024 * 1024
"""Longest HTTP/2 frame that is taken. With HTTP/2's default of 16 KiB a batch of events came in
several, and h2 takes its time for each (a sixth of the time of a commit of 256 events). What
a sender can make us hold is bounded by the stream's window, which is larger, in any case."""

WINDOW_BYTES: Final = 4 * 1024 * 1024
"""What a peer may have under way, on a stream and on a connection; grpclib's own choice."""

_DEFAULT_WINDOW_BYTES: Final = 65_535
"""Of a connection, until its peer grants more (RFC 9113, 6.9.2)."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When a silent connection is given up."""

    interval_s: float = 5.0
    """After so long without a byte, and again after each, a ping asks for one."""
    patience_s: float = 5.0
    """After so much more the connection is closed. A dead host, which sends no reset, is found
    within 10 s. (Raft's own timeouts elect without waiting for this; it frees the connection.)"""


class PeerStream(Stream):
    """One call. Any asyncio task may write, one at a time."""

    connection: "PeerConnection"
    inbox: Inbox
    """What the peer sends; takes the place of grpclib's buffer."""
    answered: bool = False
    """Whether nothing more is to be sent, whatever grpclib thinks."""
    _failure: StreamTerminatedError | None = None
    _writing: bool = False

    @property
    def transport(self) -> asyncio.Transport:
        """What carries the connection."""
        return self.connection.transport

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        """See grpclib."""
        super().init_stream(stream_id, connection)
        self.buffer = self.inbox = Inbox(self._acknowledge)  # type: ignore[assignment]

    def _acknowledge(self, size: int) -> None:
        if not self.connection.is_closing() and self.id is not None:
            self.connection.ack(self.id, size)

    def __terminated__(self, reason: str) -> None:
        """Wake readers and writers; see grpclib."""
        self._failure = StreamTerminatedError(reason)
        super().__terminated__(reason)
        self.inbox.fail(self._failure)
        self.window_updated.set()

    async def send_headers(self, headers: Any, end_stream: bool = False) -> None:
        """See grpclib."""
        if not self.answered:
            await super().send_headers(headers, end_stream)

    async def write(self, *frames: bytes) -> None:
        """Write frames; waits while the peer's window or the socket is full.

        Raises `StreamTerminatedError`, and what h2 raises. *Cancellation* may leave a part of them
        written; then the stream takes no more.
        """
        data = prefixed(frames)
        if self._writing:
            raise StreamTerminatedError("an earlier frame was cut off by a cancelled send")
        self._writing = True
        while data:
            self._check()
            room = min(len(data), self._window_bytes())
            if not self.connection.write_ready.is_set():
                await self.connection.write_ready.wait()
            elif room > 0:
                self.put(data[:room])
                self.connection.flush()
                data = data[room:]
            else:
                self.window_updated.clear()
                await self.window_updated.wait()
        self._writing = False

    def write_at_once(self, *frames: bytes) -> bool:
        """As `write`, from anywhere in this thread; returns False when it would have to wait."""
        if self._writing:
            raise StreamTerminatedError("an earlier frame was cut off by a cancelled send")
        self._check()
        data = prefixed(frames)
        if not self.has_room(data):
            return False
        self.put(data)
        self.connection.flush()
        return True

    def has_room(self, data: bytes) -> bool:
        """Whether the socket and the peer's window take all of it; raises what h2 raises."""
        return self.connection.write_ready.is_set() and len(data) <= self._window_bytes()

    def put(self, data: bytes) -> None:
        """Hand data to h2, in pieces as long as the peer takes them."""
        assert self.id is not None
        h2 = self.connection.h2
        piece_bytes = h2.max_outbound_frame_size
        for start in range(0, len(data), piece_bytes):
            h2.send_data(self.id, data[start : start + piece_bytes])

    def _window_bytes(self) -> int:
        assert self.id is not None
        return self.connection.h2.local_flow_control_window(self.id)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.connection.is_closing():
            raise StreamTerminatedError("the connection is closed")


class PeerConnection(Connection):
    """One connection, on either side."""

    def __init__(self, protocol: "PeerProtocol", h2: H2Connection, transport: asyncio.Transport):
        super().__init__(h2, transport, config=protocol.config)
        self.protocol = protocol
        self.h2 = h2
        self.transport = transport
        self._loop = protocol.loop
        self._received_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> list[Event]:
        """See grpclib."""
        self._received_at = self._loop.time()
        try:
            events = super().feed(data)
        except ProtocolError as error:
            self.protocol.on_violation(error)
            raise
        for event in events:
            if isinstance(event, ConnectionTerminated):
                self.protocol.goaway = event.error_code
        return [event for event in events if not isinstance(event, UnknownFrameReceived)]

    def create_stream(
        self, *, stream_id: int | None = None, wrapper: Wrapper | None = None
    ) -> PeerStream:
        """See grpclib."""
        return PeerStream(self, self.h2, self.transport, stream_id=stream_id, wrapper=wrapper)

    def get_peer(self) -> "Caller":
        """See grpclib."""
        return Caller(self)

    def initialize(self) -> None:
        """Begin to look for life; takes the place of grpclib's pings."""
        self._timer = self._loop.call_later(self.protocol.keepalive.interval_s, self._look)

    def _look(self) -> None:
        if self.is_closing():
            return
        keepalive = self.protocol.keepalive
        silent_s = self._loop.time() - self._received_at
        if silent_s >= keepalive.interval_s + keepalive.patience_s:
            self.transport.abort()
            return
        delay_s = keepalive.interval_s - silent_s
        if delay_s <= 0:
            self.h2.ping(b"is alive")
            self.flush()
            delay_s = keepalive.interval_s
        self._timer = self._loop.call_later(delay_s, self._look)

    def close(self) -> None:
        """See grpclib."""
        if self._timer is not None:
            self._timer.cancel()
        self.write_ready.set()  # A waiting task finds that the stream has ended.
        super().close()


class Caller(Peer):
    """Who made a call, as grpclib's events show it."""

    def __init__(self, connection: PeerConnection) -> None:
        super().__init__(connection.transport)
        self.connection = connection


class PeerProtocol(H2Protocol):
    """Makes a `PeerConnection` of a transport, on either side; made inside the loop."""

    connection: PeerConnection
    goaway: int | None = None
    """The error code of the peer's last word (RFC 9113, 7)."""

    def __init__(
        self, handler: AbstractHandler, *, client_side: bool, keepalive: KeepAlive
    ) -> None:
        h2_config = H2Configuration(
            client_side=client_side,
            header_encoding="ascii",
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )  # as grpclib has it
        super().__init__(handler, Configuration(), h2_config)
        self.keepalive = keepalive
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio; also without a running loop, as trio-asyncio calls some callbacks."""
        h2 = H2Connection(config=self.h2_config)
        h2.incoming_buffer = _Frames(server=not self.h2_config.client_side)
        settings: dict[Any, int] = dict(h2.local_settings)
        settings[SettingCodes.INITIAL_WINDOW_SIZE] = WINDOW_BYTES
        settings[SettingCodes.MAX_FRAME_SIZE] = FRAME_BYTES_MAX
        client = bool(self.h2_config.client_side)
        h2.local_settings = Settings(client=client, initial_values=settings)
        # From now on, not from the answer on, as h2 has it: a long frame that comes in one piece
        # with the answer is judged before it, and would end the connection.
        h2.max_inbound_frame_size = FRAME_BYTES_MAX
        h2.initiate_connection()
        h2.increment_flow_control_window(WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
        self.connection = PeerConnection(self, h2, cast("asyncio.Transport", transport))
        self.processor = EventsProcessor(self.handler, self.connection)
        self.connection.flush()
        self.connection.initialize()

    @property
    def transport(self) -> asyncio.Transport:
        """What carries the connection."""
        return self.connection.transport

    def is_closing(self) -> bool:
        """Whether the connection is gone, or about to be."""
        return self.connection.is_closing()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def on_node(self) -> None:
        """Learn that another node has introduced itself."""

    def on_violation(self, error: ProtocolError) -> None:
        """Learn that the peer violated HTTP/2; grpclib closes the connection next."""


class _Frames(FrameBuffer):
    """Frames of h2 that are not described for a log which is switched off.

    h2 shows each as all of it in hexadecimal, to keep 20 digits. Of 35 kB it took 99 us to take
    them in, and takes 13 if they show nothing.
    """

    def __next__(self) -> Frame:
        frame = super().__next__()
        if isinstance(frame, DataFrame):
            frame.serialize_body = _nothing  # type: ignore[method-assign]
        return frame


def _nothing() -> bytes:
    return b""


def stream_of(call: Any, frame_bytes_max: int) -> PeerStream:
    """Return the stream of a call of grpclib's, on either side, once the request is sent.

    It takes frames of at most `frame_bytes_max`.

    The one private name of grpclib in this code: it hides the stream behind its own reading and
    writing, which have no limit and no way to go on after a cancellation.
    """
    stream = call._stream
    assert isinstance(stream, PeerStream)
    stream.inbox.bytes_max = frame_bytes_max
    return stream
