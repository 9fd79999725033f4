"""The part of the Kubernetes API that the operator needs, as a port.

Adapters raise `KubernetesFailed` and what is below it, and no foreign exception. The real
adapter is `client.py`; tests have one in memory, and the same contract suite
(tests/kubernetes/test_api.py) runs against both.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from noti.errors import KubernetesFailed, KubernetesForbidden
from noti.kubernetes.objects import Object

FORBIDDEN_UNTOLD: Final = 6
"""So many failures in a row take 3 s or more with a backoff of ours. When a release is deleted, its
rights are gone a second or two before its pods are stopped, and that is nobody's mistake."""


def is_news(failure: KubernetesFailed, failures_before: int) -> bool:
    """Return whether a failure is to be logged: the first in a row, or a later 403."""
    lasts = FORBIDDEN_UNTOLD if isinstance(failure, KubernetesForbidden) else 0
    return failures_before == lasts


@dataclass(frozen=True, slots=True)
class Resource:
    """A type of objects in namespaces, as its group, version and plural name it in paths."""

    group: str
    """Empty for the core group."""
    version: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the path of the API, of one object or of all in a namespace."""
        root = f"apis/{self.group}" if self.group else "api"
        parts = (root, self.version, "namespaces", namespace, self.plural, name, subresource)
        return "/" + "/".join(part for part in parts if part)


PODS: Final = Resource("", "v1", "pods")
EVENTS: Final = Resource("", "v1", "events")
STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases")
CHECKERS: Final = Resource("node-role.bb-noti.io", "v1", "leaderstatuscheckers")


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects at one moment."""

    objects: tuple[Object, ...]
    version: str
    """From which a watch goes on without a gap."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watch reports."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object
    """Of a bookmark only `metadata.resourceVersion` means anything."""

    @property
    def version(self) -> str:
        """From which another watch goes on after this."""
        version: str = self.object["metadata"]["resourceVersion"]
        return version


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource."""

    resource: Resource
    namespace: str
    labels: str = ""
    """`key=value`, several with commas; empty for all."""
    fields: str = ""
    """`metadata.name=…`, or empty for all."""


class KubernetesApi(Protocol):
    """Reads, watches and writes objects.

    Every method raises `KubernetesFailed` when the API does not answer, or asks for patience; of
    its subclasses `KubernetesForbidden` everywhere, the others where they are named. Each request
    has a time limit of its own, but watches, which last.
    """

    async def list(self, selection: Selection) -> Listing:
        """Return all objects that are selected."""

    def watch(
        self, selection: Selection, version: str
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Watch all changes after `version`, in order; ends when the server wants it to.

        Entering, or the iterator, raises `VersionGone` when the server does not remember so far.
        """

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Return one object; raises `ObjectAbsent`."""

    async def create(self, resource: Resource, namespace: str, wanted: Object) -> Object:
        """Make an object and return it as it is now; raises `ObjectConflict` if there is one."""

    async def replace(
        self, resource: Resource, namespace: str, name: str, wanted: Object
    ) -> Object:
        """Put an object in the place of the version that it was made from, and return it.

        Raises `ObjectConflict` when that version is not the last, `ObjectAbsent`.
        """

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Object, *, subresource: str = ""
    ) -> Object:
        """Change what `patch` has (RFC 7386) and return the object.

        Raises `ObjectConflict` when the patch names a version and it is not the last;
        `ObjectAbsent`.
        """
