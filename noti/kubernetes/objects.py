"""Reads what the operator needs out of Kubernetes objects.

These are pods, stateful sets, and the spec of a LeaderStatusChecker.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from noti.address import PORT_MAX
from noti.errors import ConfigInvalid

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON has it."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""RFC 1123, as Kubernetes has it for names; also what may stand in a path without quoting."""

LOCAL_PORTS_APART: Final = 100
"""Between the ports of neighbours on a developer's machine: 8400, 8500, 8600."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as far as it matters here."""

    name: str
    uid: str
    version: str
    ip: str
    ready: bool
    """Kubernetes sends it traffic: its readiness probe succeeds, and it is not being deleted."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StatefulSet:
    """A stateful set, as far as it matters here."""

    uid: str
    replicas: int
    selector: str
    """Of its pods, as a list request takes it."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a LeaderStatusChecker asks for."""

    stateful_set: str
    namespace: str
    rpc_port: int
    local_dev: bool

    def address(self, pod: Pod) -> tuple[str, int]:
        """Return where a pod's node answers gRPC."""
        if not self.local_dev:
            return pod.ip, self.rpc_port
        ordinal = pod.name.rpartition("-")[2]
        apart = LOCAL_PORTS_APART * int(ordinal) if ordinal.isascii() and ordinal.isdigit() else 0
        return "127.0.0.1", self.rpc_port + apart


def read_pod(pod: Object) -> Pod:
    """Return a pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    ip = status.get("podIP") or ""
    return Pod(
        metadata["name"],
        metadata["uid"],
        metadata["resourceVersion"],
        ip,
        ready and bool(ip) and not metadata.get("deletionTimestamp"),
        metadata.get("labels") or {},
        metadata.get("annotations") or {},
    )


def is_owned_by(pod: Object, uid: str) -> bool:
    """Whether the object with this uid controls a pod."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def read_stateful_set(stateful_set: Object) -> StatefulSet:
    """Return a stateful set."""
    spec = stateful_set["spec"]
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    return StatefulSet(
        stateful_set["metadata"]["uid"],
        spec.get("replicas", 1),
        ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
    )


def read_spec(checker: Object) -> Spec:
    """Return what a LeaderStatusChecker asks for; raises `ConfigInvalid` saying what is wrong.

    The schema in the CRD demands the same, but an older CRD may be installed.
    """
    spec = checker.get("spec")
    if not isinstance(spec, dict):
        raise ConfigInvalid("it has no spec: give it statefulSetName, namespace, rpcPort, localDev")
    for key in ("statefulSetName", "namespace"):
        if not isinstance(spec.get(key), str) or not _NAME.fullmatch(spec[key]):
            raise ConfigInvalid(f"spec.{key} is {_shown(spec, key)}: give it a name of Kubernetes")
    port = spec.get("rpcPort")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= PORT_MAX:
        raise ConfigInvalid(f"spec.rpcPort is {_shown(spec, 'rpcPort')}: give it 1 to {PORT_MAX}")
    local_dev = spec.get("localDev", False)
    if not isinstance(local_dev, bool):
        raise ConfigInvalid(f"spec.localDev is {_shown(spec, 'localDev')}: give it true or false")
    return Spec(spec["statefulSetName"], spec["namespace"], port, local_dev)


def _shown(spec: Object, key: str) -> str:
    return repr(spec[key])[:100] if key in spec else "missing"
