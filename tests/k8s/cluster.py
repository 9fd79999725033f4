"""A Kubernetes API that answers `helm`'s questions: what kinds there are, and which objects.

Enters: objects. Leaves: answers to GET. Never: changes; anything that a chart does not ask.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.k8s.rendering import NAMESPACE, RELEASE, Manifest, objects, render, the

CLUSTER_WIDE = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
KINDS = {
    "v1": ("ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"),
    "admissionregistration.k8s.io/v1": CLUSTER_WIDE,
    "apps/v1": ("Deployment", "StatefulSet"),
    "coordination.k8s.io/v1": ("Lease",),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
    "node-role.bb-noti.io/v1": ("LeaderStatusChecker",),
}


class Cluster:
    """What a cluster holds."""

    def __init__(
        self,
        existing: Iterable[Manifest] = (),
        release: str = RELEASE,
        namespace: str = NAMESPACE,
    ) -> None:
        self.objects = list(existing)
        owned = {"release-name": release, "release-namespace": namespace}
        for each in self.objects:
            annotations = each["metadata"].setdefault("annotations", {})
            annotations |= {f"meta.helm.sh/{name}": value for name, value in owned.items()}

    def answer(self, path: str) -> Any:
        """Return what is at a path of the API, or None."""
        match path.strip("/").split("/"):
            case ["version"]:
                return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                return {
                    "kind": "APIGroupList",
                    "groups": [_group(one) for one in KINDS if "/" in one],
                }
            case ["api", version]:
                return _resources(version)
            case ["apis", group, version]:
                return _resources(f"{group}/{version}")
            case [*_, "namespaces", _, plural, name] | ["apis", _, _, plural, name]:
                return next((one for one in self.objects if _names(one, plural, name)), None)
            case _:
                return None


def _group(version: str) -> Manifest:
    group, _, number = version.partition("/")
    known = {"groupVersion": version, "version": number}
    return {"name": group, "versions": [known], "preferredVersion": known}


def _resources(version: str) -> Manifest | None:
    if version not in KINDS:
        return None
    found = [
        {
            "name": _plural(kind),
            "kind": kind,
            "namespaced": kind not in CLUSTER_WIDE,
            "verbs": ["get"],
        }
        for kind in KINDS[version]
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": found}


def _plural(kind: str) -> str:
    return kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")


def _names(one: Manifest, plural: str, name: str) -> bool:
    return _plural(one["kind"]) == plural and one["metadata"]["name"] == name


@contextmanager
def served(cluster: Cluster) -> Iterator[str]:
    """Yield the URL at which a cluster answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = cluster.answer(self.path.partition("?")[0])
            status = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(status if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def installed(manifests: Sequence[Manifest], *, ready: int = 3) -> list[Manifest]:
    """Return the objects as a cluster has them when so many of three pods are ready."""
    nodes = the(manifests, "StatefulSet")
    nodes["metadata"]["generation"] = 7
    nodes["status"] = {"observedGeneration": 7, "updatedReplicas": 3, "readyReplicas": ready}
    return list(manifests)


def render_in(existing: Iterable[Manifest], *settings: str) -> list[Manifest]:
    """Return what the chart makes for a cluster that holds these objects.

    Raises `AssertionError` with what helm says, when it refuses.
    """
    given = (part for setting in settings for part in ("--set", setting))
    with served(Cluster(existing)) as url:
        asking = ("--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url)
        done = render(*asking, *given)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)
