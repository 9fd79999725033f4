"""The in-memory API server on a real port: HTTPS with a bearer token, as Kubernetes speaks it."""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import trio
import trustme

from noti.errors import (
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    ObjectConflict,
    VersionGone,
)
from noti.kubernetes.api import Selection
from tests.kubernetes.memory_api import KINDS, ApiServer

HOST = "127.0.0.1"
TOKEN = "s3cret-token-of-the-service-account"
CODES = {KubernetesForbidden: 403, ObjectAbsent: 404, ObjectConflict: 409, VersionGone: 410}


class HttpApi:
    """Serves an `ApiServer`; can be stopped and started again at the same port."""

    def __init__(
        self, server: ApiServer, directory: Path, *, host: str = HOST, port: int = 0
    ) -> None:
        self.server = server
        self.token = TOKEN
        self._host = host
        self._port = port
        self._scope = trio.CancelScope()
        authority = trustme.CA()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(self._tls)
        self.ca = directory / "kubernetes-ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.kubeconfig = directory / "kubeconfig"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled or stopped."""
        self._scope = trio.CancelScope()
        listeners = await trio.open_tcp_listeners(self._port, host=self._host)
        self._port = listeners[0].socket.getsockname()[1]
        self.kubeconfig.write_text(json.dumps(self._config()))
        with self._scope:
            task_status.started()
            await trio.serve_listeners(self._connection, listeners)

    def refuses(self, token: str, method: str, path: str, query: Mapping[str, str]) -> int | None:
        """Return 401 or 403 for who may not do this; None for who may."""
        return None if token == self.token else 401

    def stop(self) -> None:
        """Close the port and all connections."""
        self._scope.cancel()

    def _config(self) -> dict[str, Any]:
        """A kubeconfig, in the JSON that YAML is."""
        server = f"https://{self._host}:{self._port}"
        cluster = {"server": server, "certificate-authority": str(self.ca)}
        context = {"cluster": "test", "user": "test", "namespace": "shop"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }

    async def _connection(self, raw: trio.SocketStream) -> None:
        stream = trio.SSLStream(raw, self._tls, server_side=True, https_compatible=True)
        http = h11.Connection(h11.SERVER)
        try:
            while True:
                request = await _next(http, stream)
                if not isinstance(request, h11.Request):
                    return
                body = b""
                while isinstance(event := await _next(http, stream), h11.Data):
                    body += event.data
                await self._answer(http, stream, request, body)
                if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                    return
                http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(raw)

    async def _answer(
        self, http: h11.Connection, stream: trio.SSLStream[Any], request: h11.Request, body: bytes
    ) -> None:
        headers = dict(request.headers)
        parts = urlsplit(request.target.decode())
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        send: Callable[..., Any] = partial(_send, http, stream)
        token = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        refused = self.refuses(token, request.method.decode(), parts.path, query)
        if refused is not None:
            await send(refused, _status(refused, "Unauthorized" if refused == 401 else "Forbidden"))
            return
        try:
            code, answer = self._do(request.method.decode(), parts.path, query, headers, body)
        except KubernetesFailed as failure:
            code = CODES.get(type(failure), 429 if failure.retry_after_s else 503)
            await send(code, _status(code, str(failure)), failure.retry_after_s)
            return
        if isinstance(answer, Selection):
            await self._watch(http, stream, answer, query["resourceVersion"])
        else:
            await send(code, answer)

    def _do(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[bytes, bytes],
        body: bytes,
    ) -> tuple[int, Any]:
        """Do what a request asks for; a watch is returned as its selection."""
        _, rest = path.split("/namespaces/")
        namespace, plural, *more = rest.split("/")
        kind = KINDS[plural]
        name, subresource = (*more, "", "")[:2]
        assert path == kind.path(namespace, name, subresource), path
        resource = f"{plural}/{subresource}" if subresource else plural
        server, content = self.server, json.loads(body) if body else {}
        selection = Selection(
            kind, namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        match method:
            case "GET" if query.get("watch") == "true":
                assert query["allowWatchBookmarks"] == "true"
                server.admit(resource, "watch")
                return 200, selection
            case "GET" if not name:
                server.admit(resource, "list")
                listing = server.list(selection)
                metadata = {"resourceVersion": listing.version}
                return 200, {"kind": "List", "metadata": metadata, "items": listing.objects}
            case "GET":
                server.admit(resource, "get")
                return 200, server.get(kind, namespace, name)
            case "POST":
                server.admit(resource, "create")
                return 201, server.create(kind, namespace, content)
            case "PUT":
                server.admit(resource, "update")
                return 200, server.replace(kind, namespace, name, content)
            case "PATCH":
                assert headers[b"content-type"] == b"application/merge-patch+json"
                server.admit(resource, "patch")
                return 200, server.patch(kind, namespace, name, content, subresource)
            case _:
                raise AssertionError(f"the operator never asks {method} {path}")

    async def _watch(
        self,
        http: h11.Connection,
        stream: trio.SSLStream[Any],
        selection: Selection,
        version: str,
    ) -> None:
        changes = self.server.changes(selection, version)
        headers = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
        await stream.send_all(http.send(h11.Response(status_code=200, headers=headers)) or b"")

        async def tell(kind: str, obj: Any) -> None:
            line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
            # In two pieces, as the network may cut it anywhere.
            for part in (line[:20], line[20:]):
                await stream.send_all(http.send(h11.Data(part)) or b"")

        try:
            async with aclosing(changes):
                async for change in changes:
                    await tell(change.type, change.object)
        except VersionGone as gone:
            await tell("ERROR", _status(410, str(gone)))
        if not self.server.down:
            await stream.send_all(http.send(h11.EndOfMessage()) or b"")


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "metadata": {}, "code": code, "message": message}


async def _send(
    http: h11.Connection,
    stream: trio.SSLStream[Any],
    code: int,
    answer: Any,
    retry_after_s: float = 0.0,
) -> None:
    content = json.dumps(answer).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    if retry_after_s:
        headers.append(("Retry-After", f"{retry_after_s:.0f}"))
    response = h11.Response(status_code=code, headers=headers)
    for event in (response, h11.Data(content), h11.EndOfMessage()):
        await stream.send_all(http.send(event) or b"")


async def _next(http: h11.Connection, stream: trio.SSLStream[Any]) -> Any:
    while True:
        event = http.next_event()
        if event is not h11.NEED_DATA:
            return event
        http.receive_data(bytes(await stream.receive_some()))


@asynccontextmanager
async def serving(server: ApiServer, directory: Path) -> AsyncIterator[HttpApi]:
    """Serve on a free port while the body runs."""
    http = HttpApi(server, directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(http.run)
        yield http
        nursery.cancel_scope.cancel()
