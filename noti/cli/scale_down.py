"""Finds out from its StatefulSet whether a pod that stops will come back.

A StatefulSet numbers its pods; those whose number is not wanted any more are removed permanently.
All others come back, after an upgrade or a move to another machine. Two cases are no scale-down: a
StatefulSet that is deleted, and one that is scaled to 0. Then all voters stop and stay voters,
because the cluster can only come back with those that have its log.
"""

import re
from dataclasses import dataclass

import trio

from noti.errors import (
    ConfigInvalid,
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    Unavailable,
)
from noti.kubernetes.api import STATEFUL_SETS
from noti.kubernetes.client import open_client
from noti.kubernetes.objects import Object

RETRY_S = 0.5
"""An API server that restarts is back in seconds."""


@dataclass(frozen=True, slots=True)
class PodName:
    """One pod of a StatefulSet."""

    name: str
    namespace: str
    statefulset: str


def is_surplus(pod: PodName, statefulset: Object) -> bool:
    """Whether a scale-down removes this pod, and not another StatefulSet or its end."""
    number = re.fullmatch(re.escape(pod.statefulset) + r"-(\d+)", pod.name)
    if number is None or statefulset["metadata"].get("deletionTimestamp"):
        return False
    spec = statefulset.get("spec") or {}
    replicas = 1 if spec.get("replicas") is None else spec["replicas"]
    first = (spec.get("ordinals") or {}).get("start") or 0
    return replicas > 0 and not first <= int(number[1]) < first + replicas


async def is_removed_permanently(pod: PodName, within_s: float) -> bool:
    """Ask the API whether the pod is removed permanently.

    Raises `Unavailable` with the reason when it rejects the request, or does not answer
    within `within_s` seconds.
    """
    reason = "no answer"
    with trio.move_on_after(within_s):
        while True:
            try:
                api = open_client()
                found = await api.get(STATEFUL_SETS, pod.namespace, pod.statefulset)
                return is_surplus(pod, found)
            except ObjectAbsent:
                return False  # deleted, and its pods with it
            except (KubernetesForbidden, ConfigInvalid) as error:
                reason = str(error)
                break
            except KubernetesFailed as error:
                reason = str(error)
            await trio.sleep(RETRY_S)
    raise Unavailable(
        f"the Kubernetes API does not say how many replicas {pod.namespace}/{pod.statefulset} "
        f"is to have: {reason}"
    )
