"""nats-py's client, made careful: for nodes, which read, and for commands, which publish.

Enters: servers, and how to log in. Leaves: a connection. Never: a login in plain text where TLS was
asked for.
"""

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
        if "tls" in self.options or server.uri.scheme == "tls":
            assert isinstance(transport, TcpTransport)
            assert transport._io_writer is not None
            if transport._io_writer.get_extra_info("ssl_object") is None:
                raise nats.errors.Error("the server offers no TLS, and nothing was sent to it")
        command: bytes = super()._connect_command()
        return command
