"""The API server of the rehearsal: what was installed, and who may ask for what (RBAC)."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from noti.address import Address
from noti.kubernetes.api import CHECKERS, LEASES, PODS, STATEFUL_SETS
from tests.interop.rehearsal.chart import NAMESPACE, Manifest, Rendered
from tests.kubernetes.http_api import HttpApi
from tests.kubernetes.memory_api import ApiServer

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
INSTALLED = {STATEFUL_SETS: "StatefulSet", CHECKERS: "LeaderStatusChecker", LEASES: "Lease"}


class ClusterApi(HttpApi):
    """HTTPS in front of an API server that holds what the chart installed."""

    def __init__(self, rendered: Rendered, directory: Path, address: Address) -> None:
        """Install the objects that somebody will ask for."""
        super().__init__(ApiServer(), directory, host=address[0], port=address[1])
        self._rendered = rendered
        self._directory = directory
        self._accounts: dict[str, str] = {}
        """Token -> service account."""
        self.forbidden: list[str] = []
        """What was asked for and refused."""
        for kind, name in INSTALLED.items():
            for found in rendered.all(name):
                spec = found.get("spec", {})
                self.server.put(kind, NAMESPACE, found["metadata"]["name"], spec=spec)

    def account(self, name: str) -> Path:
        """Return what the kubelet mounts into pods of a service account: its token and the CA."""
        directory = self._directory / "accounts" / name
        if not directory.exists():
            directory.mkdir(parents=True)
            token = secrets.token_hex()
            self._accounts[token] = name
            (directory / "token").write_text(token)
            (directory / "namespace").write_text(NAMESPACE)
            (directory / "ca.crt").write_bytes(self.ca.read_bytes())
        return directory

    def refuses(self, token: str, method: str, path: str, query: Mapping[str, str]) -> int | None:
        """Let a service account do what the rendered Roles let it do."""
        account = self._accounts.get(token)
        if account is None:
            return 401
        scope, rest = urlsplit(path).path.split(f"/namespaces/{NAMESPACE}/")
        group = "" if scope == "/api/v1" else scope.split("/")[2]
        resource, name, subresource = [*rest.split("/"), "", ""][:3]
        watches = query.get("watch") == "true"
        verb = VERBS.get(method) or ("watch" if watches else "get" if name else "list")
        resource = f"{resource}/{subresource}" if subresource else resource
        if self._rendered.allows(account, verb, group, resource, name):
            return None
        self.forbidden.append(f"{account}: {verb} {resource} {name}")
        return 403

    # --- what the kubelet and the controllers write -----------------------------------------------

    def pod_created(self, name: str, template: Manifest, address: str, owner: str | None) -> None:
        """Note a pod that is not ready yet; `owner` is its StatefulSet."""
        metadata = {"labels": template["metadata"]["labels"]}
        if owner is not None:
            uid = self.server.read(STATEFUL_SETS, NAMESPACE, owner)["metadata"]["uid"]
            reference = {"kind": "StatefulSet", "name": owner, "uid": uid, "controller": True}
            metadata["ownerReferences"] = [reference]
        status = {"podIP": address, "conditions": [{"type": "Ready", "status": "False"}]}
        self.server.put(PODS, NAMESPACE, name, metadata=metadata, status=status)

    def pod_ready(self, name: str, address: str, *, ready: bool) -> None:
        """Note what the readiness probe says."""
        condition = {"type": "Ready", "status": str(ready)}
        status = {"podIP": address, "conditions": [condition]}
        if self.server.read(PODS, NAMESPACE, name)["status"] != status:
            self.server.put(PODS, NAMESPACE, name, status=status)

    def pod_terminating(self, name: str) -> None:
        """Note that a pod is to end."""
        ends = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
        self.server.put(PODS, NAMESPACE, name, metadata=ends)

    def pod_deleted(self, name: str) -> None:
        """Forget a pod that has ended."""
        self.server.delete(PODS, NAMESPACE, name)

    def labels_of(self, pod: str) -> Mapping[str, str]:
        """Return a pod's labels as they are now."""
        labels: Mapping[str, str] = self.server.read(PODS, NAMESPACE, pod)["metadata"]["labels"]
        return labels

    def scale(self, name: str, replicas: int) -> None:
        """Want so many pods of a StatefulSet."""
        spec = self.server.read(STATEFUL_SETS, NAMESPACE, name)["spec"]
        self.server.put(STATEFUL_SETS, NAMESPACE, name, spec={**spec, "replicas": replicas})
