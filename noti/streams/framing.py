"""How what a stream says is written: as Server-Sent Events, or as messages of a WebSocket.

Enters: events, gaps, cursors, delays, the reason of an end. Leaves: bytes, whole in themselves, so
that those of several things can be joined.
Never: I/O; knowledge of who gets them, so that one frame serves all.

Over WebSocket there are two forms. `noti` sends each event as an object,

    {"id": "…", "type": "…", "topics": ["…"], "data": "…"}

with `retry` where the event has it; `{"cursor": "…"}` moves the reader's last event id, as
`{"retry": ms}` says when to come back. `sse` sends the text of an event stream, an event or an
order a message. Silence is broken by a ping, and a close says why the stream ended.
"""

import json
from abc import ABC, abstractmethod
from typing import Any, Final, Protocol

from noti.history.notification import Notification
from noti.streams import sse, websocket_frames
from noti.streams.end_reason import EndReason

CLOSE_CODES: Final = {
    EndReason.EXPIRED: websocket_frames.POLICY_VIOLATION,
    EndReason.REVOKED: websocket_frames.POLICY_VIOLATION,
    EndReason.BEHIND: websocket_frames.POLICY_VIOLATION,
    EndReason.STALLED: websocket_frames.POLICY_VIOLATION,
    EndReason.OVERRUN: websocket_frames.TRY_AGAIN_LATER,
}
"""The others are `GOING_AWAY`: the client comes back, to another node perhaps."""


class Framing(Protocol):
    """One way to write what a stream says. There is one object of each kind."""

    @property
    def is_websocket(self) -> bool:
        """Whether clients may say something, too, which must be read."""

    def __hash__(self) -> int:
        """As of any object."""

    def event(self, notification: Notification, text: str) -> bytes:
        """Return an event whose data is shown as `text`; raises `MessageInvalid`."""

    def greeting(self) -> bytes:
        """Return what is sent at once, so that no proxy takes a quiet stream for a dead one."""

    def retry(self, delay_ms: int) -> bytes:
        """Return the order to wait `delay_ms` before connecting again."""

    def cursor(self, event_id: str) -> bytes:
        """Return what moves the reader's last event id and shows it no event."""

    def gap(self, requested: str) -> bytes:
        """Return the news that events behind `requested` may be missing."""

    def heartbeat(self) -> bytes:
        """Return what a silent stream gets."""

    def ending(self, delay_ms: int, reason: EndReason) -> bytes:
        """Return the last words on the wire, with when to come back."""

    def turning_away(self, delay_ms: int, why: str) -> bytes:
        """Return all that a client gets for whom there is no room now."""

    def wire(self, data: bytes) -> bytes:
        """Return what the first six of these returned, joined, as it goes to a socket."""


_GREETING: Final = sse.comment("ok")


class _EventStream:
    """Server-Sent Events; on a socket they are chunks of HTTP/1.1."""

    is_websocket = False

    def event(self, notification: Notification, text: str) -> bytes:
        return sse.event_frame(notification.id, text, notification.type, notification.retry_ms)

    def greeting(self) -> bytes:
        return _GREETING

    def retry(self, delay_ms: int) -> bytes:
        return sse.retry(delay_ms)

    def cursor(self, event_id: str) -> bytes:
        return sse.cursor(event_id)

    def gap(self, requested: str) -> bytes:
        return sse.gap_frame(requested)

    def heartbeat(self) -> bytes:
        return sse.HEARTBEAT

    def ending(self, delay_ms: int, reason: EndReason) -> bytes:
        return sse.chunk(sse.retry(delay_ms)) + sse.LAST_CHUNK

    def turning_away(self, delay_ms: int, why: str) -> bytes:
        return self.greeting() + self.retry(delay_ms)

    def wire(self, data: bytes) -> bytes:
        return sse.chunk(data)


class _WebSocket(ABC):
    """What is the same in all messages of a WebSocket."""

    is_websocket = True

    def greeting(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return websocket_frames.ping()

    @abstractmethod
    def retry(self, delay_ms: int) -> bytes: ...

    def ending(self, delay_ms: int, reason: EndReason) -> bytes:
        code = CLOSE_CODES.get(reason, websocket_frames.GOING_AWAY)
        return self.retry(delay_ms) + websocket_frames.close(code, reason.value)

    def turning_away(self, delay_ms: int, why: str) -> bytes:
        return self.retry(delay_ms) + websocket_frames.close(websocket_frames.TRY_AGAIN_LATER, why)

    def wire(self, data: bytes) -> bytes:
        return data


class _WebSocketEventStream(_WebSocket):
    """The text of an event stream, an event or an order a message."""

    def event(self, notification: Notification, text: str) -> bytes:
        return websocket_frames.text(EVENT_STREAM.event(notification, text))

    def retry(self, delay_ms: int) -> bytes:
        return websocket_frames.text(sse.retry(delay_ms))

    def cursor(self, event_id: str) -> bytes:
        return websocket_frames.text(sse.cursor(event_id))

    def gap(self, requested: str) -> bytes:
        return websocket_frames.text(sse.gap_frame(requested))


class _WebSocketObjects(_WebSocket):
    """JSON objects."""

    def event(self, notification: Notification, text: str) -> bytes:
        shown: dict[str, object] = {
            "id": notification.id,
            "type": notification.type,
            "topics": notification.topics,
            "data": text,
        }
        if notification.retry_ms:
            shown["retry"] = notification.retry_ms
        return _message(shown)

    def retry(self, delay_ms: int) -> bytes:
        return _message({"retry": delay_ms})

    def cursor(self, event_id: str) -> bytes:
        return _message({"cursor": event_id})

    def gap(self, requested: str) -> bytes:
        data = sse.gap_details(requested)
        return _message({"id": sse.EARLIEST, "type": sse.GAP, "topics": (), "data": data})


EVENT_STREAM: Final[Framing] = _EventStream()
WEBSOCKET_EVENT_STREAM: Final[Framing] = _WebSocketEventStream()
WEBSOCKET_OBJECTS: Final[Framing] = _WebSocketObjects()


def _message(shown: dict[str, Any]) -> bytes:
    text = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
    return websocket_frames.text(text.encode("utf-8", "replace"))
