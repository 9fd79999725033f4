"""Keeps the pods of one cluster labelled, and the status of its LeaderStatusChecker up to date.

    watch stateful set ─┐
    watch pods ─────────┼─> plan (labels.py) ─> patch pods ─> status, event (status.py)
    query nodes ────────┘

A version of a pod gets the same patch once. A failure here does not reach other clusters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import structlog
import trio

from noti.backoff import Backoff
from noti.errors import (
    ConfigInvalid,
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    ObjectConflict,
)
from noti.kubernetes import labels, metrics, status
from noti.kubernetes.api import (
    CHECKERS,
    EVENTS,
    PODS,
    STATEFUL_SETS,
    KubernetesApi,
    Selection,
    is_news,
)
from noti.kubernetes.informer import ObjectCache, list_and_watch
from noti.kubernetes.objects import (
    Object,
    Pod,
    Spec,
    StatefulSet,
    is_owned_by,
    read_pod,
    read_spec,
    read_stateful_set,
)
from noti.kubernetes.role_queries import RoleQueries, RoleSource
from noti.kubernetes.status import Condition

log = structlog.get_logger("noti.kubernetes")


@dataclass(frozen=True)
class Surroundings:
    """What all checkers share."""

    api: KubernetesApi
    roles: RoleSource
    rng: Random
    identity: str
    """Of this operator, for events."""
    wall: Callable[[], datetime] = lambda: datetime.now(UTC)


class Reconciler:
    """One LeaderStatusChecker, from its first sight until it is deleted or its spec changes."""

    def __init__(self, checker: Object, around: Surroundings) -> None:
        """Do nothing yet."""
        self.checker = checker
        self.condition: Condition | None = None
        """The last one."""
        self._around = around
        self._reported = status.reported_before(checker)
        self._written_status: Object | None = None
        """The status as the API had it after our last look: an older CRD knows fewer fields."""
        self._labelled = False
        self._report_due = trio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_reporting)
            try:
                spec = read_spec(self.checker)
            except ConfigInvalid as error:
                self.report(Condition("SpecInvalid", str(error)))
            else:
                await _Cluster(self, spec, self._around).run()

    def update(self, checker: Object) -> None:
        """Take in the checker as it is now, with the spec that it had."""
        self.checker = checker
        if self.condition is not None and checker.get("status") != self._written_status:
            self._report_due.set()  # It was changed by another writer.

    def report(self, condition: Condition, *, labelled: bool = False) -> None:
        """Set the condition to be reported; `labelled`: labels were changed."""
        if condition != self.condition or labelled:
            self.condition = condition
            self._labelled |= labelled
            self._report_due.set()

    async def _keep_reporting(self) -> None:
        """Keep status and events up to date. What fails here delays no label."""
        backoff = Backoff(self._around.rng)
        while True:
            await self._report_due.wait()
            self._report_due = trio.Event()
            assert self.condition is not None
            try:
                await self._write_status(self.condition)
            except KubernetesFailed as failure:
                _failed("cannot write the status", failure, backoff)
                self._report_due.set()
                await trio.sleep(backoff.failed(failure.retry_after_s))
            else:
                backoff.succeeded()

    async def _write_status(self, condition: Condition) -> None:
        api, metadata = self._around.api, self.checker["metadata"]
        now = self._around.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        patch = status.status_patch(self.checker, condition, now, labelled=self._labelled)
        if patch is not None:
            self._labelled = False
            try:
                self.checker = await api.merge_patch(
                    CHECKERS, metadata["namespace"], metadata["name"], patch, subresource="status"
                )
            except KubernetesFailed:
                self._labelled = True
                raise
        self._written_status = self.checker.get("status")
        if self._reported != (condition.reason, condition.leader):
            self._reported = condition.reason, condition.leader
            log.info(
                "condition changed",
                checker=metadata["name"],
                reason=condition.reason,
                state=condition.message,
            )
            name = f"{metadata['name']}.{self._around.rng.getrandbits(64):016x}"
            event = status.event(
                self.checker, condition, name=name, now=now, reporter=self._around.identity
            )
            try:
                await api.create(EVENTS, metadata["namespace"], event)
            except KubernetesFailed as failure:  # Nothing depends on it.
                log.warning("cannot send an event", reason=str(failure))


def _failed(what: str, failure: KubernetesFailed, backoff: Backoff) -> None:
    """Count a failure; it is logged if it is news, and no mere conflict."""
    metrics.API_FAILURES.labels(type(failure).__name__).inc()
    if is_news(failure, backoff.failures) and not isinstance(failure, ObjectConflict):
        log.warning(f"{what}, trying again", reason=str(failure))


class _Cluster:
    """The pods of a spec that can be worked with."""

    def __init__(self, reconciler: Reconciler, spec: Spec, around: Surroundings) -> None:
        self._reconciler = reconciler
        self._spec = spec
        self._around = around
        self._queries = RoleQueries(around.roles, around.rng, self._wake)
        self._sets = ObjectCache(
            Selection(STATEFUL_SETS, spec.namespace, fields=f"metadata.name={spec.stateful_set}")
        )
        self._pods: ObjectCache | None = None
        self._pods_scope = trio.CancelScope()
        self._patched: dict[str, str] = {}
        """By uid: the version of a pod that was patched; the watch will report its next one."""
        self._labelled = False
        self._news = trio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        backoff = Backoff(self._around.rng, most_s=5.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, self._sets, trio.CancelScope())
            while True:
                await self._news.wait()
                self._news = trio.Event()
                try:
                    await self._reconcile(nursery)
                except KubernetesFailed as failure:
                    _failed("cannot label pods", failure, backoff)
                    self._news.set()
                    await trio.sleep(backoff.failed(failure.retry_after_s))
                else:
                    backoff.succeeded()

    def _wake(self) -> None:
        self._news.set()

    async def _watch(self, cache: ObjectCache, scope: trio.CancelScope) -> None:
        with scope:
            await list_and_watch(self._around.api, cache, self._around.rng, self._wake)

    async def _reconcile(self, nursery: trio.Nursery) -> None:
        """Compare what is with what should be, and change it; raises `KubernetesFailed`."""
        forbidden = self._forbidden()
        if forbidden is not None:
            self._reconciler.report(forbidden)
        if not self._sets.listed:
            return
        stateful_set = next(map(read_stateful_set, self._sets.objects), None)
        if stateful_set is None:
            self._queries.query((), nursery)
            if forbidden is None:
                self._reconciler.report(self._missing())
            return
        pods = self._pods_of(stateful_set, nursery)
        if pods is None:
            return
        ready = [pod for pod in pods if pod.ready]
        self._queries.query(((self._spec.address(pod), pod) for pod in ready), nursery)
        answers = self._queries.answers
        plan = labels.plan(pods, answers, stateful_set.replicas)
        await self._apply(plan, pods)
        if forbidden is None and not plan.patches and all(pod.uid in answers for pod in ready):
            condition = status.condition_of(plan, len(pods), len(ready))
            self._reconciler.report(condition, labelled=self._labelled)
            self._labelled = False

    def _pods_of(self, stateful_set: StatefulSet, nursery: trio.Nursery) -> list[Pod] | None:
        """Return the pods of the set, None while they are not known."""
        wanted = Selection(PODS, self._spec.namespace, labels=stateful_set.selector)
        if self._pods is None or self._pods.selection != wanted:
            self._pods_scope.cancel()
            self._pods, self._pods_scope = ObjectCache(wanted), trio.CancelScope()
            nursery.start_soon(self._watch, self._pods, self._pods_scope)
        if not self._pods.listed:
            return None
        owned = (pod for pod in self._pods.objects if is_owned_by(pod, stateful_set.uid))
        return [read_pod(pod) for pod in owned]

    async def _apply(self, plan: labels.Plan, pods: list[Pod]) -> None:
        """Patch all pods at once; raises `KubernetesFailed` when all have been tried."""
        self._patched = {
            pod.uid: pod.version for pod in pods if self._patched.get(pod.uid) == pod.version
        }
        todo = [pod for pod in pods if pod.name in plan.patches and pod.uid not in self._patched]
        failures: list[KubernetesFailed] = []
        async with trio.open_nursery() as nursery:
            for pod in todo:
                nursery.start_soon(self._patch, pod, plan.patches[pod.name], failures)
        if not failures:
            return
        failures.sort(key=lambda failure: (isinstance(failure, ObjectConflict), str(failure)))
        if isinstance(failures[0], KubernetesForbidden):
            self._reconciler.report(Condition("Forbidden", str(failures[0])))
        raise failures[0]

    async def _patch(self, pod: Pod, patch: Object, failures: list[KubernetesFailed]) -> None:
        try:
            await self._around.api.merge_patch(PODS, self._spec.namespace, pod.name, patch)
        except ObjectAbsent:
            return  # It has vanished: no labels are wrong.
        except KubernetesFailed as failure:
            failures.append(failure)
            return
        self._patched[pod.uid] = pod.version
        self._labelled = True
        metrics.LABEL_PATCHES.inc()
        log.info("labelled", pod=pod.name, labels=patch["metadata"].get("labels", {}))

    def _forbidden(self) -> Condition | None:
        for cache in (self._sets, self._pods):
            if cache is not None and isinstance(cache.failure, KubernetesForbidden):
                return Condition("Forbidden", str(cache.failure))
        return None

    def _missing(self) -> Condition:
        name, namespace = self._spec.stateful_set, self._spec.namespace
        return Condition(
            "StatefulSetMissing", f"there is no StatefulSet {name!r} in namespace {namespace!r}"
        )
