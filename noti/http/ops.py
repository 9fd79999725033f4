"""Answers probes for everybody, and status and metrics for operators. Nothing is changed here.

`/status?consistent=1` is linearizable: it shows at least everything that was committed anywhere
before the request (Raft 6.4). Without it, the node says what it knows.

`/liveness` depends on nothing but this process: a probe that asks for a quorum restarts healthy
nodes in a storm.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import parse_qs

import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart import Response, request
from quart_trio import QuartTrio

from noti.http.answers import Answer
from noti.http.node_view import NodeView
from noti.http.quart_glue import query_of, response_of

CONSISTENT_WAIT_S = 3.0
"""An election fits in; without a majority there is no point in waiting longer."""
JSON = "application/json"

LIVENESS, READINESS, STATUS, METRICS = "/liveness", "/readiness", "/status", "/metrics"
PROBES: Final = (LIVENESS, READINESS)
"""What everybody may ask."""
TRACE: Final = "/trace"
PATHS: Final = (*PROBES, STATUS, METRICS, TRACE)
"""What operators may ask."""

TROUBLES_MAX = 4
TROUBLE_CHARS_MAX = 500
"""A probe's answer stays within what any client takes for headers."""

STOPPING: Final = ("stopping", "this node is shutting down")
"""A trouble, and what it is in words."""

Operations: TypeAlias = Callable[[str, str], Awaitable[Answer]]
"""Takes one of `PATHS` and a query, and returns the answer."""


class NodeProbes:
    """A node's answers to everybody: no more than what programs of bb-dist-noti know."""

    def __init__(self, node: NodeView, why_not: Callable[[], tuple[str, str] | None]) -> None:
        """`why_not` returns why no stream may begin here, as a trouble and in words."""
        self._node = node
        self._why_not = why_not

    async def __call__(self, path: str, query: str) -> Answer:
        """Answer one of `PROBES`."""
        match path:
            case "/liveness":
                return self._liveness()
            case "/readiness":
                is_ready = self._node.ready() and self._why_not() is None
                return json_answer(self._servers(), 200 if is_ready else 503)
            case _:
                raise AssertionError(f"{path} is none of those")

    def _liveness(self) -> Answer:
        """Return that a node lives, as it does if it can say so."""
        node = self._node
        return json_answer(
            {
                "hostname": node.hostname,
                "build": node.build,
                "status": "up",
                "is_leader": node.is_leader(),
            }
        )

    def _servers(self) -> list[dict[str, object]]:
        return [
            {"ServerID": server.id, "RPCAddress": server.rpc_addr, "IsLeader": server.is_leader}
            for server in self._node.servers()
        ]


class NodeOperations(NodeProbes):
    """A node's answers to operators: more of the same, and more."""

    def __init__(
        self,
        node: NodeView,
        why_not: Callable[[], tuple[str, str] | None],
        metrics: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        """`why_not` returns why no stream may begin here, as a trouble and in words.

        `metrics` returns those of all processes, where there are others than this one.
        """
        super().__init__(node, why_not)
        self._metrics = metrics

    async def __call__(self, path: str, query: str) -> Answer:
        """Answer one of `PATHS`."""
        match path:
            case "/readiness":
                return self._readiness()
            case "/status":
                return await self._status(query)
            case "/trace":
                event_id = parse_qs(query).get("id", [""])[0]
                if not event_id:
                    return json_answer({"error": "name an event: /trace?id=…"}, 400)
                return json_answer(await self._node.trace(event_id))
            case "/metrics":
                page = generate_latest() if self._metrics is None else await self._metrics()
                return Answer(200, [("Content-Type", CONTENT_TYPE_LATEST)], page)
            case _:
                return await super().__call__(path, query)

    def _readiness(self) -> Answer:
        node = self._node
        servers = self._servers()
        troubles = node.troubles()
        why_not = self._why_not()
        if node.ready() and why_not is None:
            # The body is a list that programs know; what does not keep browsers away is beside it.
            shown = [("Noti-Trouble", _header_value(one)) for one in troubles[:TROUBLES_MAX]]
            return json_answer(servers, 200, *shown)
        if why_not is not None:
            trouble, text = why_not
            troubles.append({"trouble": trouble, "text": text})
        return json_answer({"ready": False, "troubles": troubles, "servers": servers}, 503)

    async def _status(self, query: str) -> Answer:
        if parse_qs(query).get("consistent", [""])[0] in ("1", "true", "yes"):
            with trio.move_on_after(CONSISTENT_WAIT_S) as patience:
                await self._node.barrier()
            if patience.cancelled_caught:
                reason = "no majority answered in time; without ?consistent=1 this node answers"
                return json_answer({"error": reason}, 503)
        return json_answer(self._node.status())


def add_routes(app: QuartTrio, operations: Operations, paths: Sequence[str]) -> None:
    """Add those of `PATHS`."""

    async def answer() -> Response:
        return response_of(await operations(request.path, query_of(request)))

    for path in paths:
        app.add_url_rule(path, endpoint=path, view_func=answer, methods=["GET"])


def add_metrics(app: QuartTrio) -> None:
    """Add `/metrics`."""

    @app.get(METRICS)
    async def metrics() -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def json_answer(document: object, status: int = 200, *headers: tuple[str, str]) -> Answer:
    """Return a document that nobody keeps."""
    fixed = [("Content-Type", JSON), ("Cache-Control", "no-store")]
    return Answer(status, [*fixed, *headers], json.dumps(document).encode())


def json_response(document: object, status: int = 200) -> Response:
    """The same as Quart has it."""
    return response_of(json_answer(document, status))


def _header_value(trouble: Mapping[str, object]) -> str:
    """Return a trouble as a header: what, since when, in words."""
    since = f"; since={trouble['since']}" if trouble.get("since") else ""
    text = f"{trouble['trouble']}{since}; {trouble.get('text')}"
    safe = "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
    return safe[:TROUBLE_CHARS_MAX]
