"""Answers probes and Prometheus about the operator.

Enters: requests. Leaves: JSON, and Prometheus' text. Never: TLS, as kubelet's probes have none; a
liveness that depends on anything but this process.
"""

import json
import socket
from collections.abc import Callable

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart import Response
from quart_trio import QuartTrio

from noti.errors import AddressInUse
from noti.ports import Address
from noti.web.hypercorn_log import HypercornLog

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
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 1.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, app, config)
        log.info("listening for probes", host=bind[0], port=bind[1])
        task_status.started(bind)


async def _serve(app: QuartTrio, config: Config) -> None:
    await serve(app, config, shutdown_trigger=trio.sleep_forever)


def _listen(bind: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    try:
        return socket.create_server(bind, family=family)
    except OSError as error:
        raise AddressInUse(
            f"--ops-addr {bind[0]}:{bind[1]} cannot be used: {error.strerror}; choose another"
        ) from error


def _json(document: object, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    content = json.dumps(document)
    return Response(content, status=status, content_type="application/json", headers=headers)
