"""A Kubernetes API server in memory: as much of it as the operator can notice.

List, watch with selectors, bookmarks and 410, optimistic concurrency, JSON merge patch, the status
subresource, generations; and what goes wrong: outages, forbidden verbs, throttling.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import trio
import yaml

from noti.errors import (
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    ObjectConflict,
    VersionGone,
)
from noti.kubernetes.api import (
    CHECKERS,
    EVENTS,
    LEASES,
    PODS,
    STATEFUL_SETS,
    Listing,
    Resource,
    Selection,
    WatchEvent,
)
from noti.kubernetes.objects import Object

KINDS = {resource.plural: resource for resource in (PODS, EVENTS, STATEFUL_SETS, LEASES, CHECKERS)}
KIND_NAMES = {
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "statefulsets": ("apps/v1", "StatefulSet"),
    "leases": ("coordination.k8s.io/v1", "Lease"),
    "leaderstatuscheckers": ("node-role.bb-noti.io/v1", "LeaderStatusChecker"),
}

# The chart grants these, but to create the Lease, which it makes; nothing else is ever asked for.
RIGHTS = {
    *(("pods", verb) for verb in ("list", "watch", "patch")),
    *(("statefulsets", verb) for verb in ("list", "watch")),
    *(("leaderstatuscheckers", verb) for verb in ("list", "watch")),
    ("leaderstatuscheckers/status", "patch"),
    *(("leases", verb) for verb in ("get", "create", "update")),
    ("events", "create"),
}


CRD = Path(__file__).parents[2] / "k8s/chart/crds/leaderstatuscheckers.yaml"


@cache
def status_schema() -> Object:
    """The schema of a checker's status; here unknown fields are refused, and not dropped."""
    [version] = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    closed: Object = _closed(version["schema"]["openAPIV3Schema"]["properties"]["status"])
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    return {**closed, "additionalProperties": False} if "properties" in schema else closed


@dataclass(frozen=True)
class Past:
    """One change, for watches."""

    version: int
    resource: Resource
    before: Object | None
    after: Object | None


@dataclass
class ApiServer:
    """The objects, their history, and the faults."""

    down: bool = False
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    throttled: int = 0
    """So many requests are answered with 429."""
    retry_after_s: float = 1.0
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(resource, verb) of all requests."""
    moments: list[float] = field(default_factory=list)
    """When they came."""
    patches: list[tuple[str, str, Object]] = field(default_factory=list)
    """(resource, name, patch) of all merge patches that were taken."""
    status_fields: frozenset[str] | None = None
    """Those that an older CRD knows; None for ours."""
    on_write: Callable[[str, str], None] = lambda _resource, _name: None

    def __post_init__(self) -> None:
        self._objects: dict[tuple[Resource, str, str], Object] = {}
        self._past: list[Past] = []
        self._version = 100
        self._oldest = 0
        self._uids = 0
        self._changed = trio.Event()
        self._epoch = 0
        self._bookmarks = 0

    # --- what tests do to it ------------------------------------------------------------------

    def stop(self) -> None:
        """Go down: every watch breaks, nobody gets an answer."""
        self.down = True
        self.end_watches()

    def start(self) -> None:
        """Come back with everything."""
        self.down = False

    def end_watches(self) -> None:
        """End all watches, as a server does after their time."""
        self._epoch += 1
        self._wake()

    def send_bookmarks(self) -> None:
        """Tell all watches how far they are."""
        self._bookmarks += 1
        self._wake()

    def forget_past(self) -> None:
        """Compact: who comes with an older version is told 410."""
        self._past.clear()
        self._oldest = self._version

    def put(self, resource: Resource, namespace: str, name: str, **parts: Any) -> Object:
        """Make an object, or change parts of one, as somebody else does."""
        key = resource, namespace, name
        current = self._objects.get(key)
        wanted = deepcopy(current) if current else self._new(resource, namespace, name)
        metadata = parts.pop("metadata", {})
        wanted["metadata"].update(metadata)
        wanted.update(deepcopy(parts))
        return self._store(resource, wanted)

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete an object."""
        gone = self._objects.pop((resource, namespace, name))
        self._version += 1
        gone = deepcopy(gone)
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._past.append(Past(self._version, resource, gone, None))
        self._wake()

    def read(self, resource: Resource, namespace: str, name: str) -> Object:
        """Return an object as it is."""
        return deepcopy(self._objects[resource, namespace, name])

    def all(self, resource: Resource, namespace: str) -> list[Object]:
        """Return all objects as they are."""
        found = (obj for key, obj in self._objects.items() if key[:2] == (resource, namespace))
        return [deepcopy(obj) for obj in found]

    # --- requests -----------------------------------------------------------------------------

    def admit(self, resource: str, verb: str) -> None:
        """Raise what this request is answered with instead of being done, if so."""
        self.asked.append((resource, verb))
        self.moments.append(trio.current_time())
        if self.down:
            raise KubernetesFailed("connection refused")
        if self.throttled:
            self.throttled -= 1
            raise KubernetesFailed("429 too many requests", self.retry_after_s)
        if (resource, verb) in self.forbidden:
            raise KubernetesForbidden(f"403 {resource} is forbidden: cannot {verb}")

    def list(self, selection: Selection) -> Listing:
        found = self.all(selection.resource, selection.namespace)
        chosen = sorted(
            (obj for obj in found if _matches(selection, obj)),
            key=lambda obj: str(obj["metadata"]["name"]),
        )
        return Listing(tuple(chosen), str(self._version))

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        if (resource, namespace, name) not in self._objects:
            raise ObjectAbsent(f'404 {resource.plural} "{name}" not found')
        return self.read(resource, namespace, name)

    def create(self, resource: Resource, namespace: str, wanted: Object) -> Object:
        name = wanted["metadata"]["name"]
        if (resource, namespace, name) in self._objects:
            raise ObjectConflict(f'409 {resource.plural} "{name}" already exists')
        made = self._new(resource, namespace, name)
        made["metadata"].update({**wanted["metadata"], **made["metadata"]})
        made.update({key: part for key, part in wanted.items() if key != "metadata"})
        return self._store(resource, made)

    def replace(self, resource: Resource, namespace: str, name: str, wanted: Object) -> Object:
        current = self.get(resource, namespace, name)
        _check_version(current, wanted)
        return self._store(resource, deepcopy(wanted))

    def patch(
        self, resource: Resource, namespace: str, name: str, patch: Object, subresource: str
    ) -> Object:
        current = self.get(resource, namespace, name)
        _check_version(current, patch)
        merged = _merge(current, patch)
        if resource is CHECKERS:  # It has a status subresource: each of the two changes its own.
            kept, other = (merged, current) if subresource == "status" else (current, merged)
            merged = {**other, "status": kept.get("status")}
            if self.status_fields is not None and merged["status"]:
                known = self.status_fields & merged["status"].keys()
                merged["status"] = {key: merged["status"][key] for key in known}
        merged["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        path = f"{resource.plural}/{subresource}" if subresource else resource.plural
        self.patches.append((path, name, deepcopy(patch)))
        if merged == current:
            return current
        stored = self._store(resource, merged)
        self.on_write(path, name)
        return stored

    def changes(self, selection: Selection, version: str) -> AsyncGenerator[WatchEvent, None]:
        """Return what a watch that begins now tells, until `end_watches`."""
        return self._changes(selection, int(version), self._epoch, self._bookmarks)

    async def _changes(
        self, selection: Selection, seen: int, epoch: int, bookmarks: int
    ) -> AsyncGenerator[WatchEvent, None]:
        if seen < self._oldest:
            raise VersionGone("410 too old resource version")
        while self._epoch == epoch:
            for past in [past for past in self._past if past.version > seen]:
                seen = past.version
                change = _as_seen(selection, past)
                if change is not None:
                    yield change
            if self._bookmarks != bookmarks:
                bookmarks, seen = self._bookmarks, self._version
                yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(seen)}})
            if not any(past.version > seen for past in self._past) and self._epoch == epoch:
                await self._changed.wait()

    # --- inside -------------------------------------------------------------------------------

    def _new(self, resource: Resource, namespace: str, name: str) -> Object:
        self._uids += 1
        api_version, kind_name = KIND_NAMES[resource.plural]
        return {
            "apiVersion": api_version,
            "kind": kind_name,
            "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{self._uids}"},
        }

    def _store(self, resource: Resource, wanted: Object) -> Object:
        if resource is CHECKERS and wanted.get("status"):
            jsonschema.validate(wanted["status"], status_schema())
        metadata = wanted["metadata"]
        key = resource, metadata["namespace"], metadata["name"]
        before = self._objects.get(key)
        generation = before["metadata"].get("generation", 1) if before else 1
        if before and before.get("spec") != wanted.get("spec"):
            generation += 1
        self._version += 1
        metadata.update(generation=generation, resourceVersion=str(self._version))
        self._objects[key] = wanted
        self._past.append(Past(self._version, resource, before, deepcopy(wanted)))
        self._wake()
        return deepcopy(wanted)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class MemoryApi:
    """`noti.kubernetes.api.KubernetesApi`, one client's view of the server."""

    def __init__(self, server: ApiServer, latency_s: float = 0.002) -> None:
        self.server = server
        self._latency_s = latency_s
        self.lag_s = 0.0
        """How late watches are."""

    async def _admit(self, resource: str, verb: str) -> None:
        await trio.sleep(self._latency_s)
        self.server.admit(resource, verb)

    async def list(self, selection: Selection) -> Listing:
        await self._admit(selection.resource.plural, "list")
        return self.server.list(selection)

    @asynccontextmanager
    async def watch(
        self, selection: Selection, version: str
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        await self._admit(selection.resource.plural, "watch")
        async with (
            aclosing(self.server.changes(selection, version)) as changes,
            aclosing(self._through(changes)) as told,
        ):
            yield told

    async def _through(
        self, changes: AsyncIterator[WatchEvent]
    ) -> AsyncGenerator[WatchEvent, None]:
        async for change in changes:
            await trio.sleep(self._latency_s + self.lag_s)
            yield change
        if self.server.down:
            raise KubernetesFailed("connection reset")

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        await self._admit(resource.plural, "get")
        return self.server.get(resource, namespace, name)

    async def create(self, resource: Resource, namespace: str, wanted: Object) -> Object:
        await self._admit(resource.plural, "create")
        return self.server.create(resource, namespace, wanted)

    async def replace(
        self, resource: Resource, namespace: str, name: str, wanted: Object
    ) -> Object:
        await self._admit(resource.plural, "update")
        return self.server.replace(resource, namespace, name, wanted)

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Object, *, subresource: str = ""
    ) -> Object:
        path = f"{resource.plural}/{subresource}" if subresource else resource.plural
        await self._admit(path, "patch")
        return self.server.patch(resource, namespace, name, patch, subresource)


def _check_version(current: Object, wanted: Object) -> None:
    version = wanted.get("metadata", {}).get("resourceVersion")
    if version is not None and version != current["metadata"]["resourceVersion"]:
        raise ObjectConflict("409 the object has been modified")


def _merge(current: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = deepcopy(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _pairs(selector: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, selector.split(",")):
        key, _, value = pair.partition("=")
        yield key, value


def _matches(selection: Selection, obj: Object) -> bool:
    metadata = obj["metadata"]
    if metadata["namespace"] != selection.namespace:
        return False
    labels = metadata.get("labels") or {}
    return all(labels.get(key) == value for key, value in _pairs(selection.labels)) and all(
        metadata[key.removeprefix("metadata.")] == value for key, value in _pairs(selection.fields)
    )


def _as_seen(selection: Selection, past: Past) -> WatchEvent | None:
    if past.resource is not selection.resource:
        return None
    was = past.before is not None and _matches(selection, past.before)
    match past.after:
        case None:
            return WatchEvent("DELETED", deepcopy(past.before or {})) if was else None
        case after if _matches(selection, after):
            return WatchEvent("MODIFIED" if was else "ADDED", deepcopy(after))
        case after:
            return WatchEvent("DELETED", deepcopy(after)) if was else None
