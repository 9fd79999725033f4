"""nats-py's client, made careful: for nodes, which read, and for commands, which publish.

Enters: servers, and how to log in. Leaves: a connection. Never: a login in plain text where TLS was
asked for; a connection, or a task, that outlives `close`.

Two things differ from nats-py:
- it keeps its login to itself where TLS was asked for and is not there. Otherwise the server, or
  whoever answers in its place, decides: nats-py begins TLS only when the server's greeting, which
  comes in plain text, says that it must;
- its end is quiet and complete, whenever it comes. nats-py's own `close` fails on a client that
  never connected, and leaves the socket and its tasks behind when a last write fails or is
  cancelled; and the answer to a ping whose sender was cancelled breaks its reading task.
"""

import asyncio
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

log = structlog.get_logger("noti.publishing")


class NatsClient(Client):
    """A client that can be closed at any time, and cancelled anywhere."""

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py calls this too, from tasks whose failure nobody would see.
        try:
            if self._flush_queue is not None:  # or it never began to connect
                await super()._close(status, do_cbs)
        except Exception as error:  # noqa: BLE001 - it is closed below, whatever went wrong
            log.debug("closing a NATS connection failed", error=repr(error))
        finally:
            self._status = status
            self._let_go()

    def _let_go(self) -> None:
        """Leave nothing behind; without a wait, so that no cancellation comes between."""
        current = asyncio.current_task()
        waiting = [sub._wait_for_msgs_task for sub in self._subs.values()]
        for task in (
            self._reading_task,
            self._ping_interval_task,
            self._flusher_task,
            *waiting,
        ):
            if task is not None and task is not current:
                task.cancel()
        self._subs.clear()
        transport: Any = self._transport
        if isinstance(transport, TcpTransport):
            for writer in (transport._io_writer, transport._bare_io_writer):
                if writer is not None:
                    writer.transport.abort()
        elif transport is not None:
            transport.close()

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            # Whoever sent this ping was cancelled; the pong still counts.
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

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
