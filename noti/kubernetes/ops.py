"""Answers probes and Prometheus about the operator, without TLS, as kubelet's probes have none.

Liveness depends on nothing but this process.
"""

import json
import socket
from collections.abc import Callable
from typing import Any, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import wrap_app
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart import Response
from quart_trio import QuartTrio

from noti.address import Address, format_address
from noti.errors import AddressInUse
from noti.http.hypercorn_glue import HypercornLog
from noti.optional import contained

log = structlog.get_logger("noti.kubernetes")


async def serve_ops(
    bind: Address,
    works: Callable[[], bool],
    in_touch: Callable[[], bool],
    *,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started with the real address.

    `works`: whether this operator holds the Lease; `in_touch`: whether the API has answered lately,
    which is what readiness says: an operator that waits for the Lease is as ready as the one that
    has it. Raises `AddressInUse`.
    """
    listener = _listen(bind)
    app = QuartTrio(__name__)

    @app.get("/liveness")
    async def liveness() -> Response:
        return _json({"status": "up", "holds_lease": works()})

    @app.get("/readiness")
    async def readiness() -> Response:
        ready = in_touch()
        return _json({"ready": ready, "holds_lease": works()}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)

    config = Config()
    config.logger_class = HypercornLog
    config.include_server_header = False
    context = WorkerContext(None)
    wrapped = wrap_app(app, config.wsgi_max_body_size, None)

    async def serve(stream: trio.SocketStream) -> None:
        with contained("connection"):
            state = ConnectionState(LifespanState({}))
            await TCPServer(wrapped, config, context, state, cast("Any", stream))

    async with trio.open_nursery() as nursery:
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        nursery.start_soon(trio.serve_listeners, serve, [accepting])
        log.info("listening for probes", host=bind[0], port=bind[1])
        task_status.started(bind)


def _listen(bind: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    try:
        return socket.create_server(bind, family=family)
    except OSError as error:
        raise AddressInUse(
            f"--ops-addr {format_address(bind)} cannot be used: {error.strerror}; choose another"
        ) from error


def _json(document: object, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    content = json.dumps(document)
    return Response(content, status=status, content_type="application/json", headers=headers)
