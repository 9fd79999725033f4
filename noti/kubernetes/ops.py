"""Answers probes and Prometheus about the operator.

Liveness depends on nothing but this process.
"""

from collections.abc import Callable

import trio
from quart import Response

from noti.address import Address
from noti.http.app import App
from noti.http.ops import add_metrics, json_response
from noti.http.ops_server import serve_operators
from noti.listening import open_listeners


async def serve_ops(
    bind: Address,
    works: Callable[[], bool],
    in_touch: Callable[[], bool],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started when the address is taken.

    `works`: whether this operator holds the Lease; `in_touch`: whether the API has answered lately,
    which is what readiness says: an operator that waits for the Lease is as ready as the one that
    has it. Raises `AddressInUse`.
    """
    app = App(__name__)

    @app.get("/liveness")
    async def liveness() -> Response:
        return json_response({"status": "up", "holds_lease": works()})

    @app.get("/readiness")
    async def readiness() -> Response:
        ready = in_touch()
        return json_response({"ready": ready, "holds_lease": works()}, 200 if ready else 503)

    add_metrics(app)
    listeners = await open_listeners(bind, "--ops-addr")
    await serve_operators(listeners, app, task_status=task_status)
