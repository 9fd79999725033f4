"""Reads what clients of adopted WebSockets say: when, how much at once, and what is to be answered.

Whatever they say, the hub has other things to do: of all its time, this takes a share, and within
that the clients take turns. Who does not take what he is sent is not heard meanwhile, so that no
answer waits for room: it always goes between two frames, and nothing is kept for a client.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress

import trio

from noti.streams.end_reason import EndReason
from noti.streams.framing import CLOSE_CODES
from noti.streams.open_streams import AdoptedStream
from noti.streams.websocket_frames import close
from noti.streams.websocket_reader import NO_REPLY, Reply, WebSocketReader, is_pong

TURN_S = 0.01
"""Clients are heard so often, as long as there is something to hear."""
TURN_S_MAX = 0.002
"""How long one turn takes at the most, and one read more: a fifth of the hub's time."""
RECEIVE_BYTES = 512
"""A client's share of a turn: some 80 of the shortest frames, in 2 ms. Of honest ones, six bytes
answer a heartbeat."""
REST_BYTES = 64 * 1024
"""Thrown away before a connection is closed: bytes left unread would reset it."""


class ClientMessages:
    """Which clients have said something that is not read, and who is in the middle of a frame."""

    def __init__(self) -> None:
        self._readable: OrderedDict[int, AdoptedStream] = OrderedDict()
        """By descriptor, as in the next two; who was heard longest ago comes first."""
        self._deferred: dict[int, AdoptedStream] = {}
        """Those who first have to take what they were sent."""
        self._readers: dict[int, WebSocketReader] = {}
        """Of those who have not finished what they say."""
        self._next_turn_at = -math.inf

    def note(self, stream: AdoptedStream) -> None:
        """Note that something has come."""
        if stream.fd not in self._deferred:
            self._readable.setdefault(stream.fd, stream)

    def taken(self, stream: AdoptedStream) -> None:
        """Note that a client has taken all that it was sent."""
        if self._deferred.pop(stream.fd, None) is not None:
            self._readable[stream.fd] = stream

    @property
    def due_at(self) -> float:
        """When somebody is to be heard, in Trio's time; infinity for nobody."""
        return self._next_turn_at if self._readable else math.inf

    def turn(self) -> Iterator[AdoptedStream]:
        """Return one after the other who is to be heard now: each is to be read."""
        now = trio.current_time()
        if now < self._next_turn_at:
            return
        self._next_turn_at = now + TURN_S
        for _ in range(len(self._readable)):
            fd, stream = self._readable.popitem(last=False)
            if stream.unsent:
                self._deferred[fd] = stream
                continue
            yield stream
            if not self._readable or trio.current_time() >= now + TURN_S_MAX:
                return

    def read(self, stream: AdoptedStream) -> Reply | None:
        """Read a share of what a client said; return the answer, or None if it hung up."""
        try:
            data = stream.connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return NO_REPLY
        except OSError:
            return None
        if not data:
            return None
        reader = self._readers.pop(stream.fd, None)
        if reader is None and is_pong(data):
            reply = NO_REPLY
        else:
            reader = reader or WebSocketReader()
            reply = reader.feed(data)
            if reply.close is not None:
                return reply
            if not reader.idle:
                self._readers[stream.fd] = reader
        # There may be more, which is not reported again.
        self._readable[stream.fd] = stream
        return reply

    def part(self, stream: AdoptedStream, reason: EndReason, *, told: bool) -> None:
        """Forget a stream that is about to be closed, for a reason that it was told or not.

        If it was not and can be, it is.
        """
        self._readable.pop(stream.fd, None)
        self._deferred.pop(stream.fd, None)
        self._readers.pop(stream.fd, None)
        with suppress(OSError):
            if reason in CLOSE_CODES and not told and not stream.unsent:
                stream.connection.send(close(CLOSE_CODES[reason], reason.value))
            stream.connection.recv(REST_BYTES)
