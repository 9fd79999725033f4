"""Answers operators: probes, status, metrics. Nothing is changed here.

`/status?consistent=1` is linearizable: it shows at least everything that was committed anywhere
before the request (Raft 6.4). Without it, the node says what it knows.

`/liveness` depends on nothing but this process: a probe that asks for a quorum restarts healthy
nodes in a storm.
"""

import json
from collections.abc import Mapping

import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart import Response, request
from quart_trio import QuartTrio

from noti.http.node_view import NodeView
from noti.streams.hub import Hub

CONSISTENT_WAIT_S = 3.0
"""An election fits in; without a majority there is no point in waiting longer."""
JSON = "application/json"

TROUBLES_MAX = 4
TROUBLE_CHARS_MAX = 500
"""A probe's answer stays within what any client takes for headers."""


def add_routes(app: QuartTrio, hub: Hub, node: NodeView) -> None:
    """Add `/liveness`, `/readiness`, `/status` and `/metrics`."""

    @app.get("/liveness")
    async def liveness() -> Response:
        return json_response(
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
        troubles = node.troubles()
        if node.ready() and hub.running:
            # The body is a list that programs know; what does not keep browsers away is beside it.
            response = json_response(servers)
            for trouble in troubles[:TROUBLES_MAX]:
                response.headers.add("Noti-Trouble", _header_value(trouble))
            return response
        if not hub.running:
            troubles.append({"trouble": "stopping", "text": "this node is shutting down"})
        return json_response({"ready": False, "troubles": troubles, "servers": servers}, status=503)

    @app.get("/status")
    async def status() -> Response:
        if request.args.get("consistent") in ("1", "true", "yes"):
            with trio.move_on_after(CONSISTENT_WAIT_S) as patience:
                await node.barrier()
            if patience.cancelled_caught:
                reason = "no majority answered in time; without ?consistent=1 this node answers"
                return json_response({"error": reason}, status=503)
        return json_response({"clients": hub.clients, **node.status()})

    add_metrics(app)


def add_metrics(app: QuartTrio) -> None:
    """Add `/metrics`."""

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def json_response(document: object, status: int = 200) -> Response:
    """Return a document that nobody keeps."""
    headers = {"Cache-Control": "no-store"}
    return Response(json.dumps(document), status=status, content_type=JSON, headers=headers)


def _header_value(trouble: Mapping[str, object]) -> str:
    """Return a trouble as a header: what, since when, in words."""
    since = f"; since={trouble['since']}" if trouble.get("since") else ""
    text = f"{trouble['trouble']}{since}; {trouble.get('text')}"
    safe = "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
    return safe[:TROUBLE_CHARS_MAX]
