"""Whether a pod that stops is to come back: what its StatefulSet says.

Enters: the names of the pod and of its StatefulSet, and the Kubernetes API. Leaves: whether the pod
is removed permanently. Never: a write to the API, a wait longer than it is given.

A StatefulSet numbers its pods; those whose number is not wanted any more are removed permanently.
All others come back, after an upgrade or a move to another machine. Two cases are no scale-down: a
StatefulSet that is deleted, and one that is scaled to 0. Then all voters stop and stay voters,
because the cluster can only come back with those that have its log.
"""

import re
from dataclasses import dataclass

import httpx2
import trio
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ConfigError
from lightkube.models.apps_v1 import StatefulSetSpec
from lightkube.resources.apps_v1 import StatefulSet

from noti.errors import Unavailable

RETRY_S = 0.5
"""An API server that restarts is back in seconds."""


@dataclass(frozen=True, slots=True)
class PodName:
    """One pod of a StatefulSet."""

    name: str
    namespace: str
    statefulset: str


def is_surplus(pod: PodName, spec: StatefulSetSpec) -> bool:
    """Whether a scale-down removes this pod; False also for one of another StatefulSet."""
    number = re.fullmatch(re.escape(pod.statefulset) + r"-(\d+)", pod.name)
    replicas = 1 if spec.replicas is None else spec.replicas
    if number is None or replicas == 0:
        return False
    first = (spec.ordinals.start or 0) if spec.ordinals else 0
    return not first <= int(number[1]) < first + replicas


async def is_removed_permanently(pod: PodName, within_s: float) -> bool:
    """Ask the API whether the pod is removed permanently.

    Raises `Unavailable` with the reason when it refuses, or says nothing within `within_s` seconds.
    """
    reason = "no answer"
    with trio.move_on_after(within_s):
        while True:
            try:
                return await _ask(pod, within_s)
            except httpx2.HTTPStatusError as error:
                status = error.response.status_code if error.response is not None else 0
                if status == 404:
                    return False  # deleted, and its pods with it
                reason = f"it answers {status} {error}"
                if 400 <= status < 500 and status != 429:
                    break
            except httpx2.HTTPError as error:
                reason = str(error) or type(error).__name__
            except (ConfigError, KeyError, OSError, ValueError) as error:
                reason = f"no access to it is set up here ({type(error).__name__}: {error})"
                break
            await trio.sleep(RETRY_S)
    raise Unavailable(
        f"the Kubernetes API does not say how many replicas {pod.namespace}/{pod.statefulset} "
        f"is to have: {reason}"
    )


async def _ask(pod: PodName, within_s: float) -> bool:
    client = AsyncClient(KubeConfig.from_env(), timeout=httpx2.Timeout(within_s), trust_env=False)
    try:
        found = await client.get(StatefulSet, pod.statefulset, namespace=pod.namespace)
    finally:
        await client.close()
    deleted = found.metadata is not None and found.metadata.deletionTimestamp is not None
    return not deleted and found.spec is not None and is_surplus(pod, found.spec)
