"""Decides the labels of a cluster's pods, from the roles that the pods report.

Enters: the pods as Kubernetes knows them, the answer of each. Leaves: one merge patch for each pod
whose labels are wrong, and who leads. Never: a key of another writer; I/O.

- Of two that claim to lead, the one with the higher Raft term does; what the others report about
  their leader counts as much as its own answer.
- A pod that is not ready, or does not answer, has no role and gets no browsers.
- All pods that are ready and answer get browsers, but not the leader, unless it is the only one.
  So an election changes nothing for browsers.
- When no pod answers, most likely this side is cut off: ready pods keep their browsers, without
  roles. Kubernetes itself looks at their health.
- What was written in a higher term is not overwritten by what is known of a lower one, unless all
  pods of the cluster have answered: then it was founded anew, as terms never go back.

A patch names the version of the pod that it was decided upon: of two operators that both believe to
be in charge, the one that looked at an older pod gets a conflict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from noti.kubernetes.objects import Object, Pod
from noti.rpc.answers import NodeRole

DOMAIN: Final = "node-role.bb-noti.io"
ROLE_LABELS: Final = ("node-role", f"{DOMAIN}/role")
"""The first is bb-dist-noti-operator's. Values: leader, follower."""
SERVE_LABEL: Final = f"{DOMAIN}/serve-sse"
"""`true`, or absent. The follower service selects by it."""
TERM_ANNOTATION: Final = f"{DOMAIN}/term"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a cluster, and what has to be done."""

    leader: str
    """Name of the pod that leads; empty when none is known."""
    term: int
    """The Raft term of leader and roles; 0 when no pod reported one."""
    answering: int
    """Ready pods that have answered."""
    patches: Mapping[str, Object]
    """By name of pod: JSON merge patches (RFC 7386)."""


def plan(pods: Sequence[Pod], answers: Mapping[str, NodeRole | None], replicas: int) -> Plan:
    """Return what to do.

    `answers` has the last answer of each pod that was asked, by its uid; None for no answer. A
    ready pod that was not asked yet is left alone. `replicas` is how many pods there should be.
    """
    ready = [pod for pod in pods if pod.ready]
    asked = {pod.name: answers[pod.uid] for pod in ready if pod.uid in answers}
    answered = {name: answer for name, answer in asked.items() if answer is not None}
    leader, term = _leader(answered)
    others = any(name != leader for name in answered) or len(asked) < len(ready)
    # A leader that was alone serves until others are labelled: browsers must find somebody.
    relieved = any(_serves(pod) for pod in ready if pod.name in answered and pod.name != leader)
    complete = len(answered) == len(pods) >= replicas
    patches = {}
    for pod in pods:
        if pod.ready and pod.name not in asked:
            continue
        role, serves = None, pod.ready and not answered
        if pod.name in answered:
            if term < _term_of(pod) and not complete:
                continue
            role = "leader" if pod.name == leader else "follower"
            serves = pod.name != leader or not others or (_serves(pod) and not relieved)
        patch = _patch(pod, role, serves, term)
        if patch is not None:
            patches[pod.name] = patch
    return Plan(leader, term, len(answered), patches)


def _leader(answered: Mapping[str, NodeRole]) -> tuple[str, int]:
    """Return the name of the leader, and its term."""
    evidence = [(answer.term, name) for name, answer in answered.items() if answer.role == "leader"]
    evidence += [(answer.term, answer.leader) for answer in answered.values() if answer.leader]
    if not evidence:
        return "", max((answer.term for answer in answered.values()), default=0)
    term = max(term for term, _ in evidence)
    leaders = {name for at, name in evidence if at == term}
    if len(leaders) > 1:  # Raft has one a term: not all of these are of one cluster.
        return "", term
    [leader] = leaders
    own = answered.get(leader)
    if own is not None and own.role != "leader" and own.term >= term:
        return "", term  # It has been restarted or deposed since it led the others.
    return leader, term


def _term_of(pod: Pod) -> int:
    written = pod.annotations.get(TERM_ANNOTATION, "")
    return int(written) if written.isascii() and written.isdigit() else 0


def _serves(pod: Pod) -> bool:
    return pod.labels.get(SERVE_LABEL) == "true"


def _patch(pod: Pod, role: str | None, serves: bool, term: int) -> Object | None:
    wanted = {**dict.fromkeys(ROLE_LABELS, role), SERVE_LABEL: "true" if serves else None}
    labels = {key: value for key, value in wanted.items() if pod.labels.get(key) != value}
    metadata: Object = {"labels": labels} if labels else {}
    if role is not None and term != _term_of(pod):
        metadata["annotations"] = {TERM_ANNOTATION: str(term)}
    if not metadata:
        return None
    return {"metadata": {"resourceVersion": pod.version, **metadata}}
