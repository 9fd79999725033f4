"""As much of the Kubernetes API as a pod may see: one StatefulSet."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


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
    def serving(self, host: str = "127.0.0.1") -> Iterator[str]:
        """Yield the URL at which it is served."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = api.answer(self.path, self.headers.get("Authorization", ""))
                encoded = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                with suppress(BrokenPipeError):  # who asked may have gone
                    self.wfile.write(encoded)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer((host, 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://{host}:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()

    def write_access(self, file: Path, url: str) -> None:
        """Write what a pod needs to ask, as a kubeconfig."""
        file.write_text(
            json.dumps(
                {
                    "current-context": "pod",
                    "clusters": [{"name": "here", "cluster": {"server": url}}],
                    "users": [{"name": "pod", "user": {"token": self.token}}],
                    "contexts": [{"name": "pod", "context": {"cluster": "here", "user": "pod"}}],
                }
            )
        )


def rejection(status: int) -> dict[str, Any]:
    """Return what the API says with an error."""
    kind = {"apiVersion": "v1", "kind": "Status", "status": "Failure"}
    return {**kind, "code": status, "message": f"rejected with {status}", "metadata": {}}
