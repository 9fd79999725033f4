"""What browsers and a node say on one connection: event streams (HTTP/1.1, HTTP/2), WebSocket.

Enters: requests, received bytes, cut anywhere. Leaves: bytes to send; which events came on which
stream, and how streams ended.
Never: I/O, clocks. Whatever the node may not say raises `MessageInvalid`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from urllib.parse import urlencode

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from noti.errors import MessageInvalid
from tests.bench.load.reading import Body, Reader, Reading
from tests.soak.setups import Transport
from tests.soak.websockets import Receiver, closing, handshake

PATH = "/.well-known/mercure"
AUTHORITY = "soak"
STREAMS_MAX = 4
"""Of one connection over HTTP/2."""
STREAM_WINDOW_BYTES = 6 * 1024 * 1024
CONNECTION_WINDOW_BYTES = 15 * 1024 * 1024
"""As Chromium has them; who says nothing has 64 KiB for both."""
OK, SWITCHED, UNAVAILABLE = 200, 101, 503
NO_CLOSE = 1006
"""How RFC 6455 (7.1.5) calls the end of a WebSocket that nobody closed."""


@dataclass(frozen=True)
class Request:
    """What a browser asks for: all topics."""

    last_event_id: str
    token: str
    """Empty for none."""
    in_subprotocol: bool
    """Whether a WebSocket brings its token as a page does, which cannot set headers."""


@dataclass(eq=False)
class Stream:
    """One browser's part of a connection."""

    status: int = 0
    """The response's status, 200 for a WebSocket that is open; 0 until the node answered."""
    ended: bool = False
    close_code: int = NO_CLOSE


Taken = list[tuple[Stream, list[Reading]]]


class Conversation(ABC):
    """One connection."""

    protocol = "http/1.1"
    """By the name that TLS has for it."""

    def __init__(self, reader: Reader) -> None:
        self.outgoing = bytearray()
        self.streams: list[Stream] = []
        """Those that have not ended."""
        self._reader = reader

    @property
    def takes_more(self) -> bool:
        """Whether another stream can begin."""
        return not self.streams

    @abstractmethod
    def begin(self, request: Request) -> Stream:
        """Ask for a stream."""

    @abstractmethod
    def take(self, data: bytes) -> Taken:
        """Return what was received, for each stream that it concerns."""

    def leave(self, stream: Stream) -> None:
        """Read no more of a stream."""
        if stream in self.streams:
            self.streams.remove(stream)


class EventStream(Conversation):
    """Server-Sent Events over HTTP/1.1."""

    def begin(self, request: Request) -> Stream:
        self._body = Body(self._reader)
        lines = [f"GET {PATH}?topic=* HTTP/1.1", f"Host: {AUTHORITY}", "Accept: text/event-stream"]
        lines.append(f"Last-Event-ID: {request.last_event_id}")
        if request.token:
            lines.append(f"Authorization: Bearer {request.token}")
        self.outgoing += "\r\n".join([*lines, "", ""]).encode()
        self.streams.append(stream := Stream())
        return stream

    def take(self, data: bytes) -> Taken:
        readings = self._body.take(data)
        if not self.streams:
            return []
        [stream] = self.streams
        stream.status = self._body.status
        stream.ended = self._body.ended or stream.status not in (0, OK)
        return [(stream, readings)]


class WebSocket(Conversation):
    """Messages of one of the two subprotocols."""

    def __init__(self, reader: Reader, subprotocol: str) -> None:
        super().__init__(reader)
        self._subprotocol = subprotocol

    def begin(self, request: Request) -> Stream:
        offered = [self._subprotocol]
        headers: list[str] = []
        if request.token and request.in_subprotocol:
            offered.append(f"authorization.bearer.{request.token}")
        elif request.token:
            headers.append(f"Authorization: Bearer {request.token}")
        query = urlencode({"topic": "*", "lastEventID": request.last_event_id})
        asked, self._is_answer = handshake(f"{PATH}?{query}", AUTHORITY, offered, headers)
        self._receiver: Receiver | None = None
        self._head = b""
        self.outgoing += asked
        self.streams.append(stream := Stream())
        return stream

    def take(self, data: bytes) -> Taken:
        if not self.streams:
            return []
        [stream] = self.streams
        if self._receiver is None:
            head, blank, data = (self._head + data).partition(b"\r\n\r\n")
            if not blank:
                self._head = head
                return []
            stream.status = self._is_answer(head)
            if stream.status != SWITCHED:
                stream.ended = True
                return [(stream, [])]
            stream.status = OK
            self._receiver = Receiver(self._reader, self._subprotocol)
        readings = self._receiver.take(data)
        self.outgoing += self._receiver.answers()
        if self._receiver.close_code:
            stream.ended, stream.close_code = True, self._receiver.close_code
            if self._receiver.was_turned_away:
                stream.status = UNAVAILABLE
        return [(stream, readings)]

    def leave(self, stream: Stream) -> None:
        super().leave(stream)
        if stream.status == OK and not stream.ended:
            self.outgoing += closing()


class Http2(Conversation):
    """Some event streams on one connection."""

    protocol = "h2"

    def __init__(self, reader: Reader, *, has_wide_windows: bool = False) -> None:
        super().__init__(reader)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._http.initiate_connection()
        if has_wide_windows:
            window = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
            self._http.update_settings({window: STREAM_WINDOW_BYTES})
            self._http.increment_flow_control_window(CONNECTION_WINDOW_BYTES)
        self._by_id: dict[int, tuple[Stream, Body]] = {}
        self._goes_away = False

    @property
    def takes_more(self) -> bool:
        # A node that stops allows none any more.
        most = min(STREAMS_MAX, self._http.remote_settings.max_concurrent_streams)
        return len(self.streams) < most and not self._goes_away

    def begin(self, request: Request) -> Stream:
        fields = {":method": "GET", ":scheme": "https", ":authority": AUTHORITY}
        fields |= {":path": f"{PATH}?topic=*", "accept": "text/event-stream"}
        fields["last-event-id"] = request.last_event_id
        if request.token:
            fields["authorization"] = f"Bearer {request.token}"
        number = self._http.get_next_available_stream_id()
        self._http.send_headers(number, list(fields.items()), end_stream=True)
        self.outgoing += self._http.data_to_send()
        stream = Stream()
        self._by_id[number] = stream, Body(self._reader)
        self.streams.append(stream)
        return stream

    def leave(self, stream: Stream) -> None:
        super().leave(stream)
        for number in [key for key, (one, _) in self._by_id.items() if one is stream]:
            del self._by_id[number]
            try:
                self._http.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            except h2.exceptions.ProtocolError:
                continue  # it ended meanwhile, or the whole connection did
        self.outgoing += self._http.data_to_send()

    def take(self, data: bytes) -> Taken:
        try:
            events = self._http.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            raise MessageInvalid(f"HTTP/2: {error}") from error
        taken: Taken = []
        for event in events:
            self._take_event(event, taken)
        self.outgoing += self._http.data_to_send()
        return taken

    def _take_event(self, event: h2.events.Event, taken: Taken) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(number), headers=list(headers)):
                if number in self._by_id:
                    stream, body = self._by_id[number]
                    fields = {str(name): str(value) for name, value in headers}
                    stream.status = body.status = int(fields[":status"])
                    stream.ended = stream.status != OK
                    taken.append((stream, []))
            case h2.events.DataReceived(stream_id=int(number)):
                self._http.acknowledge_received_data(event.flow_controlled_length, number)
                if number in self._by_id:
                    stream, body = self._by_id[number]
                    taken.append((stream, body.take(event.data)))
            case h2.events.StreamEnded(stream_id=int(number)):
                self._end(number, taken)
            case h2.events.StreamReset(stream_id=int(number)):
                self._end(number, taken)
            case h2.events.ConnectionTerminated():
                # The library reads nothing behind it; who is cut off in the middle resumes.
                self._goes_away = True
                for number in list(self._by_id):
                    self._end(number, taken)
            case _:
                pass

    def _end(self, number: int, taken: Taken) -> None:
        if number in self._by_id:
            stream, _ = self._by_id.pop(number)
            stream.ended = True
            taken.append((stream, []))


def conversation(
    transport: Transport, reader: Reader, *, has_wide_windows: bool = False
) -> Conversation:
    """Return a new one; over HTTP/2 perhaps with the windows of a browser."""
    match transport:
        case Transport.EVENTS:
            return EventStream(reader)
        case Transport.HTTP_2:
            return Http2(reader, has_wide_windows=has_wide_windows)
        case Transport.OBJECTS | Transport.MESSAGES:
            return WebSocket(reader, transport.subprotocol)
