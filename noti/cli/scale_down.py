"""Finds out from its StatefulSet which pods of it will come back.

A StatefulSet numbers its pods; those whose number is not wanted any more are removed permanently.
All others come back, after an upgrade or a move to another machine. Two cases are no scale-down: a
StatefulSet that is deleted, and one that is scaled to 0. Then all voters stop and stay voters,
because the cluster can only come back with those that have its log.
"""

import re
import time
from dataclasses import dataclass

from noti.errors import (
    ConfigInvalid,
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    Unavailable,
)
from noti.kubernetes import service_account
from noti.kubernetes.api import STATEFUL_SETS
from noti.kubernetes.objects import Object

RETRY_S = 0.5
"""An API server that restarts is back in seconds."""


@dataclass(frozen=True, slots=True)
class PodName:
    """One pod of a StatefulSet."""

    name: str
    namespace: str
    statefulset: str


@dataclass(frozen=True, slots=True)
class WantedPods:
    """Which pods a StatefulSet is to have."""

    statefulset: str
    numbers: range | None
    """None for all: it is deleted, or scaled to 0."""

    def lacks(self, pod: str) -> bool:
        """Whether a scale-down removes this pod; no pod of another StatefulSet."""
        number = re.fullmatch(re.escape(self.statefulset) + r"-(\d+)", pod)
        return bool(number and self.numbers is not None and int(number[1]) not in self.numbers)


def wanted_pods(statefulset: Object) -> WantedPods:
    """Return which pods a StatefulSet is to have."""
    metadata, spec = statefulset["metadata"], statefulset.get("spec") or {}
    replicas = 1 if spec.get("replicas") is None else spec["replicas"]
    first = (spec.get("ordinals") or {}).get("start") or 0
    stays = replicas > 0 and not metadata.get("deletionTimestamp")
    return WantedPods(metadata["name"], range(first, first + replicas) if stays else None)


def ask_for_wanted_pods(pod: PodName, within_s: float) -> WantedPods:
    """Ask the API which pods the StatefulSet of a pod is to have.

    Raises `KubernetesForbidden` when it may not be asked, and `Unavailable` with the reason when it
    does not answer within `within_s` seconds.
    """
    until = time.monotonic() + within_s
    while True:
        left_s = max(0.1, until - time.monotonic())
        try:
            found = service_account.get(STATEFUL_SETS, pod.namespace, pod.statefulset, left_s)
            return wanted_pods(found)
        except ObjectAbsent:
            return WantedPods(pod.statefulset, None)  # deleted, and its pods with it
        except KubernetesForbidden:
            raise
        except (KubernetesFailed, ConfigInvalid) as error:
            last = isinstance(error, ConfigInvalid) or time.monotonic() + RETRY_S >= until
            if last:
                raise Unavailable(
                    f"the Kubernetes API does not say how many replicas {pod.namespace}/"
                    f"{pod.statefulset} is to have: {error}"
                ) from None
        time.sleep(RETRY_S)
