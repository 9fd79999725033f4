"""The nursery tree of the operator: one Lease, and while it is held, one task a checker.

None of these tasks can stop the others.

    lease        taken, renewed, given back at the end
      checkers   LeaderStatusCheckers of the namespace, by a watch
        one checker   reconciling.py, for each; begun anew when its spec changes
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio
from structlog.contextvars import bound_contextvars

from noti.backoff import Backoff
from noti.errors import KubernetesFailed, KubernetesForbidden, ObjectAbsent
from noti.kubernetes import metrics
from noti.kubernetes.api import CHECKERS, LEASES, Selection, is_news
from noti.kubernetes.election import Election, LeaseTimes
from noti.kubernetes.informer import ObjectCache, list_and_watch
from noti.kubernetes.objects import Object
from noti.kubernetes.reconciling import Reconciler, Surroundings
from noti.optional import contained

log = structlog.get_logger("noti.kubernetes")

RESIGN_S_MAX: Final = 2.0
"""For giving the Lease back; another operator would have it after 15 s anyway."""

IN_TOUCH_S: Final = 30.0
"""An operator without an answer of the API for longer is not ready."""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """Where an operator works, and as whom."""

    namespace: str
    identity: str
    """No other operator's: the name of its pod."""
    lease: str = "noti-operator"
    checkers: frozenset[str] = frozenset()
    """Names of those to work for; empty for all of the namespace."""
    lease_times: LeaseTimes = field(default_factory=LeaseTimes)


class Operator:
    """Works whenever it holds the Lease."""

    def __init__(self, config: OperatorConfig, around: Surroundings) -> None:
        """Do nothing yet."""
        self._config = config
        self._around = around
        self._election = Election(
            config.identity, config.lease, config.namespace, config.lease_times
        )
        self._api_answered_at = -IN_TOUCH_S
        self._running: dict[str, tuple[object, Reconciler, trio.CancelScope]] = {}

    def in_touch(self) -> bool:
        """Whether the API has answered lately, also while another operator holds the Lease."""
        return trio.current_time() < self._api_answered_at + IN_TOUCH_S

    @property
    def works(self) -> bool:
        """Whether this operator holds the Lease."""
        return self._election.ends_at is not None

    async def run(self) -> None:
        """Wait for the Lease, work while it is held, and again, until cancelled.

        *Cancellation*: stops working, then gives the Lease back, within `RESIGN_S_MAX`.
        """
        try:
            while True:
                await self._campaign()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._work)
                    await self._stay()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(RESIGN_S_MAX, shield=True):
                await self._resign()

    # --- the lease --------------------------------------------------------------------------------

    async def _campaign(self) -> None:
        """Return when the Lease is held."""
        waiting_for = ""
        backoff = Backoff(self._around.rng, most_s=5.0)
        while True:
            pause_s = self._pause_s()
            try:
                if await self._look():
                    log.info("holds the lease", lease=self._config.lease)
                    metrics.HOLDS_LEASE.set(1)
                    return
                backoff.succeeded()
            except KubernetesFailed as failure:
                if is_news(failure, backoff.failures):
                    log.warning("cannot get the lease, trying again", reason=str(failure))
                pause_s += backoff.failed(failure.retry_after_s)
            if self._election.holder not in ("", waiting_for):
                waiting_for = self._election.holder
                log.info("waits for the lease", lease=self._config.lease, holder=waiting_for)
            await trio.sleep(pause_s)

    async def _stay(self) -> None:
        """Renew the Lease; return when it is lost."""
        while True:
            ends_at = self._election.ends_at
            assert ends_at is not None
            with trio.CancelScope(deadline=ends_at) as term:
                await trio.sleep(self._pause_s())
                try:
                    await self._look()
                except KubernetesForbidden as failure:
                    log.info(
                        "may not renew the lease, as when its release ends", reason=str(failure)
                    )
                except KubernetesFailed as failure:
                    log.warning("cannot renew the lease, trying again", reason=str(failure))
            if term.cancelled_caught:
                self._election.lose()
            if self._election.ends_at is None:
                log.warning("lost the lease", holder=self._election.holder)
                metrics.HOLDS_LEASE.set(0)
                return

    async def _look(self) -> bool:
        """Look at the Lease, take or renew it if that may be; return whether it is held now.

        Raises `KubernetesFailed`.
        """
        api, config = self._around.api, self._config
        asked_at = trio.current_time()
        try:
            lease: Object | None = await api.get(LEASES, config.namespace, config.lease)
        except ObjectAbsent:
            lease = None
        self._api_answered_at = trio.current_time()
        wanted = self._election.looked(lease, self._api_answered_at, self._wall())
        if wanted is None:
            return False
        if lease is None:
            written = await api.create(LEASES, config.namespace, wanted)
        else:
            written = await api.replace(LEASES, config.namespace, config.lease, wanted)
        self._election.wrote(written, asked_at)
        return True

    async def _resign(self) -> None:
        wanted = self._election.resign(self._wall())
        metrics.HOLDS_LEASE.set(0)
        if wanted is None:
            return
        try:
            config = self._config
            await self._around.api.replace(LEASES, config.namespace, config.lease, wanted)
            log.info("gave the lease back", lease=config.lease)
        except (KubernetesForbidden, ObjectAbsent) as failure:
            log.info("the lease has gone with its release", reason=str(failure))
        except KubernetesFailed as failure:
            log.warning("could not give the lease back", reason=str(failure))

    def _pause_s(self) -> float:
        return self._config.lease_times.retry_s * self._around.rng.uniform(0.8, 1.0)

    def _wall(self) -> str:
        """Return the time as Leases have it (MicroTime)."""
        return self._around.wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    # --- the checkers -----------------------------------------------------------------------------

    async def _work(self) -> None:
        """Reconcile all checkers of the namespace until cancelled."""
        cache = ObjectCache(Selection(CHECKERS, self._config.namespace))
        self._running.clear()
        try:
            async with trio.open_nursery() as nursery:

                def changed() -> None:
                    if cache.listed:
                        self._take_in(list(cache.objects), nursery)

                nursery.start_soon(self._count)
                await list_and_watch(self._around.api, cache, self._around.rng, changed)
        finally:
            self._running.clear()
            metrics.CHECKERS.clear()

    def _take_in(self, checkers: list[Object], nursery: trio.Nursery) -> None:
        """Begin with new checkers, begin anew with changed ones, stop with deleted ones."""
        only = self._config.checkers
        wanted = {
            checker["metadata"]["uid"]: checker
            for checker in checkers
            if not only or checker["metadata"]["name"] in only
        }
        for uid in self._running.keys() - wanted.keys():
            self._running.pop(uid)[2].cancel()
        for uid, checker in wanted.items():
            spec = checker.get("spec")
            if uid in self._running:
                began_with, reconciler, scope = self._running[uid]
                if began_with == spec:
                    reconciler.update(checker)
                    continue
                scope.cancel()
            reconciler, scope = Reconciler(checker, self._around), trio.CancelScope()
            self._running[uid] = spec, reconciler, scope
            nursery.start_soon(self._reconcile, reconciler, scope)

    async def _reconcile(self, reconciler: Reconciler, scope: trio.CancelScope) -> None:
        backoff = Backoff(self._around.rng, first_s=1.0, most_s=60.0)
        with scope:
            while True:
                name = reconciler.checker["metadata"]["name"]
                with bound_contextvars(checker=name), contained("checker"):
                    await reconciler.run()
                await trio.sleep(backoff.failed())

    async def _count(self) -> None:
        """Keep the metric of checkers up to date."""
        while True:
            found = [reconciler.condition for _, reconciler, _ in self._running.values()]
            metrics.CHECKERS.clear()
            for reason, number in Counter(one.reason for one in found if one).items():
                metrics.CHECKERS.labels(reason).set(number)
            await trio.sleep(1)
