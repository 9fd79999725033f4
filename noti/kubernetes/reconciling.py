"""Keeps the pods of one cluster labelled, and the LeaderStatusChecker that asked for it informed.

Enters: the checker, pods and stateful sets from watches, roles from nodes. Leaves: merge patches
of pods and of the checker's status, events. Never: the same patch twice for one version of a pod;
a failure that reaches other clusters.

    follow stateful set ─┐
    follow pods ─────────┼─> plan (labels.py) ─> patch pods ─> status, event (status.py)
    ask nodes ───────────┘
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
from noti.kubernetes.api import CHECKERS, EVENTS, PODS, STATEFUL_SETS, KubernetesApi, Selection
from noti.kubernetes.informer import Copy, follow
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
from noti.kubernetes.role_queries import Questions, RoleSource
from noti.kubernetes.status import Finding

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
        self.found: Finding | None = None
        """What was found last."""
        self._around = around
        self._told = status.told_before(checker)
        self._left: Object | None = None
        """The status as the API had it after our last look: an older CRD knows fewer fields."""
        self._labelled = False
        self._to_tell = trio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_what_is_found)
            try:
                spec = read_spec(self.checker)
            except ConfigInvalid as error:
                self.find(Finding("SpecInvalid", str(error)))
            else:
                await _Cluster(self, spec, self._around, nursery).run()

    def seen(self, checker: Object) -> None:
        """Take in the checker as it is now, with the spec that it had."""
        self.checker = checker
        if self.found is not None and checker.get("status") != self._left:
            self._to_tell.set()  # Somebody else has changed it.

    def find(self, found: Finding, *, labelled: bool = False) -> None:
        """Have something told; `labelled`: labels were changed."""
        if found != self.found or labelled:
            self.found = found
            self._labelled |= labelled
            self._to_tell.set()

    async def _tell_what_is_found(self) -> None:
        """Keep status and events up to date. What fails here delays no label."""
        backoff = Backoff(self._around.rng)
        while True:
            await self._to_tell.wait()
            self._to_tell = trio.Event()
            assert self.found is not None
            try:
                await self._tell(self.found)
            except KubernetesFailed as failure:
                _failed("cannot write the status", failure, backoff)
                self._to_tell.set()
                await trio.sleep(backoff.failed(failure.retry_after_s))
            else:
                backoff.succeeded()

    async def _tell(self, found: Finding) -> None:
        api, metadata = self._around.api, self.checker["metadata"]
        now = self._around.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        patch = status.status_patch(self.checker, found, now, labelled=self._labelled)
        if patch is not None:
            self._labelled = False
            try:
                self.checker = await api.merge_patch(
                    CHECKERS, metadata["namespace"], metadata["name"], patch, subresource="status"
                )
            except KubernetesFailed:
                self._labelled = True
                raise
        self._left = self.checker.get("status")
        if self._told != (found.reason, found.leader):
            self._told = found.reason, found.leader
            log.info("found", checker=metadata["name"], reason=found.reason, state=found.message)
            name = f"{metadata['name']}.{self._around.rng.getrandbits(64):016x}"
            event = status.event(
                self.checker, found, name=name, now=now, reporter=self._around.identity
            )
            try:
                await api.create(EVENTS, metadata["namespace"], event)
            except KubernetesFailed as failure:  # Nothing depends on it.
                log.warning("cannot send an event", reason=str(failure))


def _failed(what: str, failure: KubernetesFailed, backoff: Backoff) -> None:
    """Count a failure; the first in a row is told, unless it is a mere conflict."""
    metrics.API_FAILURES.labels(type(failure).__name__).inc()
    if backoff.failures == 0 and not isinstance(failure, ObjectConflict):
        log.warning(f"{what}, trying again", reason=str(failure))


class _Cluster:
    """The pods of a spec that can be worked with."""

    def __init__(
        self, reconciler: Reconciler, spec: Spec, around: Surroundings, nursery: trio.Nursery
    ) -> None:
        self._reconciler = reconciler
        self._spec = spec
        self._around = around
        self._nursery = nursery
        self._questions = Questions(around.roles, nursery, around.rng, self._wake)
        self._sets = Copy(
            Selection(STATEFUL_SETS, spec.namespace, fields=f"metadata.name={spec.stateful_set}")
        )
        self._pods: Copy | None = None
        self._following_pods = trio.CancelScope()
        self._patched: dict[str, str] = {}
        """By uid: the version of a pod that was patched; the watch will tell its next one."""
        self._labelled = False
        self._news = trio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        self._follow(self._sets, trio.CancelScope())
        backoff = Backoff(self._around.rng, most_s=5.0)
        while True:
            await self._news.wait()
            self._news = trio.Event()
            try:
                await self._reconcile()
            except KubernetesFailed as failure:
                _failed("cannot label pods", failure, backoff)
                self._news.set()
                await trio.sleep(backoff.failed(failure.retry_after_s))
            else:
                backoff.succeeded()

    def _wake(self) -> None:
        self._news.set()

    def _follow(self, copy: Copy, scope: trio.CancelScope) -> None:
        async def following() -> None:
            with scope:
                await follow(self._around.api, copy, self._around.rng, self._wake)

        self._nursery.start_soon(following)

    async def _reconcile(self) -> None:
        """Compare what is with what should be, and change it; raises `KubernetesFailed`."""
        forbidden = self._forbidden()
        if forbidden is not None:
            self._reconciler.find(forbidden)
        if not self._sets.listed:
            return
        stateful_set = next(map(read_stateful_set, self._sets.objects), None)
        if stateful_set is None:
            self._questions.ask_these(())
            if forbidden is None:
                self._reconciler.find(self._missing())
            return
        pods = self._pods_of(stateful_set)
        if pods is None:
            return
        ready = [pod for pod in pods if pod.ready]
        self._questions.ask_these((self._spec.address(pod), pod) for pod in ready)
        answers = self._questions.answers
        plan = labels.plan(pods, answers, stateful_set.replicas)
        await self._apply(plan, pods)
        if forbidden is None and not plan.patches and all(pod.uid in answers for pod in ready):
            found = status.finding(plan, len(pods), len(ready))
            self._reconciler.find(found, labelled=self._labelled)
            self._labelled = False

    def _pods_of(self, stateful_set: StatefulSet) -> list[Pod] | None:
        """Return the pods of the set, None while they are not known."""
        wanted = Selection(PODS, self._spec.namespace, labels=stateful_set.selector)
        if self._pods is None or self._pods.selection != wanted:
            self._following_pods.cancel()
            self._pods, self._following_pods = Copy(wanted), trio.CancelScope()
            self._follow(self._pods, self._following_pods)
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
            self._reconciler.find(Finding("Forbidden", str(failures[0])))
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

    def _forbidden(self) -> Finding | None:
        for copy in (self._sets, self._pods):
            if copy is not None and isinstance(copy.failure, KubernetesForbidden):
                return Finding("Forbidden", str(copy.failure))
        return None

    def _missing(self) -> Finding:
        name, namespace = self._spec.stateful_set, self._spec.namespace
        return Finding(
            "StatefulSetMissing", f"there is no StatefulSet {name!r} in namespace {namespace!r}"
        )
