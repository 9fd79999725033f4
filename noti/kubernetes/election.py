"""Decides which of several operators works: the holder of a Lease (coordination.k8s.io/v1).

Enters: the Lease as it was read, monotonic time, wall time as text. Leaves: the Lease to write, if
it may be taken or must be renewed. Never: two holders, if clocks run at about one speed; I/O.

As in client-go's leaderelection: the clocks of machines are not compared. A candidate that does
not hold the Lease measures with its own clock how long it has not changed, and takes it after the
duration that stands in it. The holder stops earlier, when it has not renewed for
`renew_within_s`. Writes carry the version that was read, so that one of two candidates gets a
conflict.
"""

from copy import deepcopy
from dataclasses import dataclass

from noti.kubernetes.objects import Object


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds; the defaults are those of Kubernetes' own components."""

    duration_s: int = 15
    renew_within_s: float = 10.0
    """Less than the duration: who cannot renew stops before another one begins."""
    retry_s: float = 2.0


class Election:
    """One candidate's view of the Lease."""

    def __init__(self, identity: str, name: str, namespace: str, times: LeaseTimes) -> None:
        """`identity` must be no other candidate's."""
        self._identity = identity
        self._name = name
        self._namespace = namespace
        self._times = times
        self._last_seen: Object | None = None
        self._seen_at = 0.0
        self._held: Object | None = None
        self._renewed_at = 0.0

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last looked at; empty for none."""
        return _holder(self._last_seen or {})

    @property
    def ends_at(self) -> float | None:
        """Until when this candidate may work; None while it may not."""
        return None if self._held is None else self._renewed_at + self._times.renew_within_s

    def looked(self, lease: Object | None, now: float, wall: str) -> Object | None:
        """Take in the Lease (None: there is none) and return what to write, or None to wait."""
        if self._last_seen is None or lease != self._last_seen:
            self._last_seen, self._seen_at = lease, now
        if lease is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        spec = lease.get("spec") or {}
        holder = _holder(lease)
        if holder not in ("", self._identity):
            self._held = None
            if now < self._seen_at + self._duration(spec):
                return None
        wanted = deepcopy(lease)
        mine = holder == self._identity
        wanted["spec"] = {
            **spec,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._times.duration_s,
            "acquireTime": (spec.get("acquireTime") or wall) if mine else wall,
            "renewTime": wall,
            "leaseTransitions": _count(spec.get("leaseTransitions")) + (0 if mine else 1),
        }
        return wanted

    def wrote(self, lease: Object, asked_at: float) -> None:
        """Take in that the Lease was written, by a request that was sent at `asked_at`."""
        self._last_seen, self._seen_at = lease, asked_at
        self._held, self._renewed_at = lease, asked_at

    def lose(self) -> None:
        """Stop being the holder, because time ran out."""
        self._held = None

    def resign(self, wall: str) -> Object | None:
        """Return the Lease with which another candidate need not wait; None when not the holder."""
        held, self._held = self._held, None
        if held is None:
            return None
        spec = {**held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": wall}
        return {**held, "spec": spec}

    def _duration(self, spec: Object) -> float:
        return _count(spec.get("leaseDurationSeconds")) or self._times.duration_s


def _holder(lease: Object) -> str:
    holder = (lease.get("spec") or {}).get("holderIdentity")
    return holder if isinstance(holder, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
