"""As much of the Kubernetes API as a pod may see: one StatefulSet."""

import json
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme


@dataclass
class StatefulSetApi:
    """A server of one StatefulSet, and what it was asked."""

    namespace: str = "default"
    name: str = "noti"
    token: str = "pod-token"
    spec: dict[str, Any] = field(default_factory=lambda: {"replicas": 3})
    deleted: bool = False
    failing: int | None = None
    """A status instead of an answer."""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(path)
        if self.failing is not None:
            return self.failing, rejection(self.failing)
        if authorization != f"Bearer {self.token}":
            return 401, rejection(401)
        if path != f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{self.name}":
            return 404, rejection(404)
        metadata = {"name": self.name, "namespace": self.namespace, "uid": "u"}
        metadata["resourceVersion"] = "1"
        if self.deleted:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        spec = {"selector": {}, "serviceName": "noti-headless", "template": {}, **self.spec}
        kind = {"apiVersion": "apps/v1", "kind": "StatefulSet"}
        return 200, {**kind, "metadata": metadata, "spec": spec}

    @contextmanager
    def serving(self, account: Path, host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
        """Serve it over TLS, and yield the variables by which a pod finds it.

        `account` becomes what the kubelet mounts: the token, and the CA of the server.
        """
        api = self
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(tls)
        authority.cert_pem.write_to_path(account / "ca.crt")
        (account / "token").write_text(self.token + "\n")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = api.answer(self.path, self.headers.get("Authorization", ""))
                encoded = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            def log_message(self, *_: object) -> None:
                pass

        with _Server((host, 0), Handler) as server:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                port = str(server.server_address[1])
                yield {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
            finally:
                server.shutdown()
                thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    """They are joined when it closes: none outlives its test."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what is wrong with the server, and not that who asked has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def rejection(status: int) -> dict[str, Any]:
    """Return what the API says with an error."""
    kind = {"apiVersion": "v1", "kind": "Status", "status": "Failure"}
    return {**kind, "code": status, "message": f"rejected with {status}", "metadata": {}}
