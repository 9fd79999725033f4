"""The status, conditions and events of a LeaderStatusChecker; conditions of other writers stay."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, assert_never

from noti.kubernetes.labels import Plan
from noti.kubernetes.objects import Object

Reason: TypeAlias = Literal[
    "LeaderKnown",
    "NoLeader",
    "NoAnswer",
    "NoneReady",
    "NoPods",
    "SpecInvalid",
    "StatefulSetMissing",
    "Forbidden",
]

COMPONENT: Final = "noti-operator"


@dataclass(frozen=True, slots=True)
class Condition:
    """The state of a cluster, in one word for machines and one line for people."""

    reason: Reason
    message: str
    leader: str = ""
    term: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the spec can be worked with."""
        return self.reason not in ("SpecInvalid", "StatefulSetMissing", "Forbidden")

    @property
    def ready(self) -> bool:
        """Whether a leader is known and the labels say so."""
        return self.reason == "LeaderKnown"


def condition_of(plan: Plan, pods: int, ready: int) -> Condition:
    """Return the condition of a cluster of so many pods, so many of them ready."""
    answering = f"{plan.answering} of {pods} pods answer"
    if not pods:
        return Condition("NoPods", "the StatefulSet has no pods")
    if not ready:
        return Condition("NoneReady", f"none of {pods} pods is ready")
    if not plan.answering:
        message = f"none of {ready} ready pods answers the operator; they keep their browsers"
        return Condition("NoAnswer", message)
    if not plan.leader:
        return Condition("NoLeader", f"no leader is known; {answering}", term=plan.term)
    message = f"{plan.leader} leads in term {plan.term}; {answering}"
    return Condition("LeaderKnown", message, plan.leader, plan.term)


def status_patch(
    checker: Object, condition: Condition, now: str, *, labelled: bool
) -> Object | None:
    """Return the merge patch that brings a status up to date, or None.

    `labelled`: labels were changed since the last time; `now` is RFC 3339.
    """
    status = checker.get("status") or {}
    generation = checker["metadata"].get("generation", 0)
    wanted: Object = {
        "leaderNode": condition.leader,
        "term": condition.term,
        "observedGeneration": generation,
        "conditions": _conditions(status.get("conditions") or [], condition, generation, now),
    }
    changed = {key: value for key, value in wanted.items() if status.get(key) != value}
    if not changed and not labelled:
        return None
    return {"status": {**changed, "lastUpdated": now}}


def _conditions(
    current: list[Object], condition: Condition, generation: int, now: str
) -> list[Object]:
    """Return all conditions: a merge patch replaces the list, in which others may have theirs."""
    mine = {"Accepted": condition.accepted, "Ready": condition.ready}
    before = {one.get("type"): one for one in current}
    foreign = [one for one in current if one.get("type") not in mine]
    conditions = []
    for name, value in mine.items():
        status, was = str(value), before.get(name, {})
        since = was.get("lastTransitionTime", now) if was.get("status") == status else now
        accepted = name == "Accepted" and value
        conditions.append(
            {
                "type": name,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": since,
                "reason": "Accepted" if accepted else condition.reason,
                "message": "the spec can be worked with" if accepted else condition.message,
            }
        )
    return [*foreign, *conditions]


def reported_before(checker: Object) -> tuple[str, str]:
    """Return reason and leader of the status, as an operator last wrote them."""
    status = checker.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            return condition.get("reason", ""), status.get("leaderNode", "")
    return "", ""


def event(checker: Object, condition: Condition, *, name: str, now: str, reporter: str) -> Object:
    """Return the event (core/v1) that reports a condition to people; `name` must be new."""
    metadata = checker["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": checker.get("apiVersion", "node-role.bb-noti.io/v1"),
            "kind": checker.get("kind", "LeaderStatusChecker"),
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": _event_type(condition.reason),
        "reason": condition.reason,
        "message": condition.message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": reporter,
    }


def _event_type(reason: Reason) -> str:
    match reason:
        case "LeaderKnown" | "NoLeader" | "NoneReady" | "NoPods":
            return "Normal"  # A start, an election, and being scaled to nothing are daily life.
        case "NoAnswer" | "SpecInvalid" | "StatefulSetMissing" | "Forbidden":
            return "Warning"
        case _:
            assert_never(reason)
