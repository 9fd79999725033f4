"""grpclib's end of an HTTP/2 connection, where a healthy peer would lose it, or a broken one go
unseen.

Enters: bytes from the transport. Leaves: what grpclib makes of them; complaints. Never: frames.

Three things differ from grpclib:
- whatever comes from a peer shows that it lives, not only the answer to a ping, which may stand
  behind megabytes of data (so does gRPC's own core);
- a frame of a type that is not known is skipped (RFC 9113, 5.5); grpclib ends the connection;
- what breaks the rules of HTTP/2 is told, not only answered with the end of the connection.
"""

import asyncio

from grpclib.protocol import H2Protocol
from h2.events import Event, UnknownFrameReceived
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame

# h2 describes each frame for a log that is switched off: all of it in hexadecimal, to keep 20
# digits. Of 35 kB it took 99 us to take them in, and takes 13 now.
Frame.__repr__ = object.__repr__  # type: ignore[method-assign]


class Http2Protocol(H2Protocol):
    """One connection, on either side; asyncio."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self.processor.processors[UnknownFrameReceived] = _skip
        connection, feed = self.connection, self.connection.feed

        def take_in(data: bytes) -> list[Event]:
            if connection._close_by_ping_handler is not None:
                connection.ping_ack_process()
            try:
                return feed(data)
            except ProtocolError as error:
                self.complain(transport, error)
                raise

        connection.feed = take_in  # type: ignore[method-assign]

    def complain(self, transport: asyncio.BaseTransport, error: ProtocolError) -> None:
        """Hear that the peer broke the rules; grpclib closes the connection next."""


def _skip(_event: UnknownFrameReceived) -> None:
    """Do nothing about it."""
