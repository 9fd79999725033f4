"""nats-py's client, made careful: for nodes, which read, and for commands, which publish.

Enters: servers, and how to log in. Leaves: a connection. Never: a login in plain text where TLS was
asked for.
"""

from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport


class NatsClient(Client):
    """nats-py's client, which keeps its login to itself where TLS was asked for and is not there.

    Otherwise the server, or whoever answers in its place, decides: nats-py begins TLS only when
    the server's greeting, which comes in plain text, says that it must.
    """

    def _connect_command(self) -> bytes:
        server, transport = self._current_server, self._transport
        assert server is not None
        encrypted = server.uri.scheme == "wss"
        if isinstance(transport, TcpTransport):
            writer = transport._io_writer
            assert writer is not None
            encrypted = writer.get_extra_info("ssl_object") is not None
            if encrypted:
                # nats-py makes this protocol by hand and does not tell it of TLS, as asyncio would:
                # then asyncio logs a warning at the end of every connection.
                protocol: Any = writer.transport.get_protocol()
                if protocol is not None:  # or the server has hung up meanwhile
                    protocol._over_ssl = True
        if not encrypted and ("tls" in self.options or server.uri.scheme == "tls"):
            raise nats.errors.Error("the server offers no TLS, and nothing was sent to it")
        command: bytes = super()._connect_command()
        return command
