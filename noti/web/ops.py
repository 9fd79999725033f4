"""Answers those who operate the node: probes, status, metrics.

Enters: requests. Leaves: JSON, and Prometheus' text. Never: changes to anything.

`/liveness` depends on nothing but this process: a probe that asks for a quorum restarts healthy
nodes in a storm.
"""

import json

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart import Response
from quart_trio import QuartTrio

from noti.web.hub import Hub
from noti.web.view import NodeView

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"


def add_routes(app: QuartTrio, hub: Hub, node: NodeView) -> None:
    """Add `/liveness`, `/readiness`, `/status` and `/metrics`."""

    @app.get("/liveness")
    async def liveness() -> Response:
        return _json(
            {
                "hostname": node.hostname,
                "build": node.build,
                "status": "up",
                "is_leader": node.is_leader(),
            }
        )

    @app.get("/readiness")
    async def readiness() -> Response:
        servers = [
            {"ServerID": server.id, "RPCAddress": server.rpc_addr, "IsLeader": server.is_leader}
            for server in node.servers()
        ]
        return _json(servers, status=200 if node.ready() and hub.running else 503)

    @app.get("/status")
    async def status() -> Response:
        return _json({"clients": hub.clients, **node.status()})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _json(document: object, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(json.dumps(document), status=status, content_type=JSON, headers=headers)
