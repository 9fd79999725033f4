"""Serves who operates a node or an operator: probes, status, metrics, at an address of their own.

Without TLS, as kubelet's probes have none.
"""

import socket
from collections.abc import Sequence
from functools import partial

import structlog
import trio

from noti import listening
from noti.descriptors import OPS_CONNECTIONS_MAX
from noti.http.app import App
from noti.http.config import HttpConfig
from noti.http.connection_limits import ConnectionLimits
from noti.http.hypercorn_glue import Connection, Hypercorn
from noti.optional import contained

log = structlog.get_logger("noti.http")


async def serve_operators(
    listeners: Sequence[socket.socket],
    app: App,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, and close the listening sockets then, and all connections."""
    config = HttpConfig()  # nothing that is set for browsers counts here
    limits = ConnectionLimits("ops", OPS_CONNECTIONS_MAX, config)
    hypercorn = Hypercorn(config)

    async def serve(stream: trio.SocketStream) -> None:
        connection = Connection(stream, app, config)
        if not limits.admit(connection, listening.peer_of(stream)):
            return
        connection.mark_idle()
        try:
            with contained("connection"):
                await hypercorn.serve(connection)
        finally:
            connection.close()

    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                accept = partial(listening.serve, listener="ops")
                nursery.start_soon(accept, listener, serve, nursery)
            nursery.start_soon(limits.log_episodes)
            host, port = listeners[0].getsockname()[:2]
            log.info("listening for operators", host=host, port=port)
            task_status.started()
    finally:
        for listener in listeners:
            listener.close()
