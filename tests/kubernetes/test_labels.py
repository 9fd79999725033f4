"""Which labels pods should have, from what they say."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.kubernetes.labels import (
    ROLE_LABELS,
    SERVE_LABEL,
    TERM_ANNOTATION,
    Plan,
    plan,
)
from noti.kubernetes.objects import Pod
from noti.rpc.answers import NodeRole, RoleName
from tests import promises

NAMES = ("noti-0", "noti-1", "noti-2")


def pod(name: str, **labels: str) -> Pod:
    return Pod(name, f"uid-{name}", "5", "10.0.0.1", True, labels, {})


def says(name: str, role: RoleName, term: int, leader: str = "") -> tuple[str, NodeRole]:
    return f"uid-{name}", NodeRole(name, role, term, name if role == "leader" else leader)


PODS = [pod(name) for name in NAMES]
HEALTHY = dict(
    [
        says("noti-0", "leader", 5),
        says("noti-1", "follower", 5, "noti-0"),
        says("noti-2", "follower", 5, "noti-0"),
    ]
)


def apply(pods: list[Pod], done: Plan) -> list[Pod]:
    """Return the pods as they are after the plan."""
    after = []
    for one in pods:
        metadata = done.patches.get(one.name, {"metadata": {}})["metadata"]
        labels = {**one.labels, **metadata.get("labels", {})}
        after.append(
            replace(
                one,
                labels={key: value for key, value in labels.items() if value is not None},
                annotations={**one.annotations, **metadata.get("annotations", {})},
            )
        )
    return after


def roles(pods: list[Pod]) -> dict[str, str | None]:
    for one in pods:
        assert one.labels.get(ROLE_LABELS[0]) == one.labels.get(ROLE_LABELS[1])
    return {one.name: one.labels.get(ROLE_LABELS[0]) for one in pods}


def serving(pods: list[Pod]) -> set[str]:
    return {one.name for one in pods if one.labels.get(SERVE_LABEL) == "true"}


def test_leader_and_followers_are_distinguished_and_followers_serve() -> None:
    done = plan(PODS, HEALTHY, 3)
    after = apply(PODS, done)
    assert (done.leader, done.term, done.answering) == ("noti-0", 5, 3)
    assert roles(after) == {"noti-0": "leader", "noti-1": "follower", "noti-2": "follower"}
    assert serving(after) == {"noti-1", "noti-2"}
    assert {one.annotations[TERM_ANNOTATION] for one in after} == {"5"}


def test_nothing_is_patched_when_nothing_differs() -> None:
    after = apply(PODS, plan(PODS, HEALTHY, 3))
    assert plan(after, HEALTHY, 3).patches == {}


def test_a_patch_has_our_keys_and_the_version_only() -> None:
    mixed = [pod("noti-0", app="noti", **{ROLE_LABELS[0]: "leader"}), *PODS[1:]]
    patch = plan(mixed, HEALTHY, 3).patches["noti-0"]
    assert patch == {
        "metadata": {
            "resourceVersion": "5",
            "labels": {ROLE_LABELS[1]: "leader"},
            "annotations": {TERM_ANNOTATION: "5"},
        }
    }


def test_of_two_leaders_the_one_with_the_higher_term_leads() -> None:
    answers = HEALTHY | dict([says("noti-2", "leader", 6)])
    done = plan(PODS, answers, 3)
    assert (done.leader, done.term) == ("noti-2", 6)
    assert roles(apply(PODS, done))["noti-0"] == "follower"


def test_followers_of_a_higher_term_depose_a_leader_that_does_not_know() -> None:
    answers = HEALTHY | dict([says("noti-1", "follower", 6, "noti-2")])
    done = plan(PODS, answers, 3)
    assert (done.leader, done.term) == ("noti-2", 6)


def test_a_leader_is_not_deposed_by_a_candidate_that_nobody_follows() -> None:
    answers = HEALTHY | dict([says("noti-2", "candidate", 9)])
    assert plan(PODS, answers, 3).leader == "noti-0"


def test_a_leader_that_was_restarted_in_its_term_leads_no_more() -> None:
    answers = HEALTHY | dict([says("noti-0", "follower", 5)])
    assert plan(PODS, answers, 3).leader == ""


def test_an_election_leaves_browsers_where_they_are() -> None:
    before = apply(PODS, plan(PODS, HEALTHY, 3))
    answers = dict(says(name, "candidate", 6) for name in NAMES)
    after = apply(before, plan(before, answers, 3))
    assert set(roles(after).values()) == {"follower"}
    assert serving(after) == set(NAMES)


def test_a_leader_alone_serves_and_stops_when_a_follower_is_labelled() -> None:
    """In between both serve: patches come one by one, and browsers must find somebody."""
    alone = [PODS[0], replace(PODS[1], ready=False)]
    after = apply(alone, plan(alone, HEALTHY, 3))
    assert serving(after) == {"noti-0"}
    both = [after[0], PODS[1]]
    both = apply(both, plan(both, HEALTHY, 3))
    assert serving(both) == {"noti-0", "noti-1"}
    assert serving(apply(both, plan(both, HEALTHY, 3))) == {"noti-1"}


def test_a_single_node_serves() -> None:
    one = [PODS[0]]
    assert serving(apply(one, plan(one, dict([says("noti-0", "leader", 1)]), 1))) == {"noti-0"}


@pytest.mark.parametrize("gone", ["unready", "silent"])
def test_labels_of_a_pod_that_is_not_ready_or_silent_are_cleared(gone: str) -> None:
    before = apply(PODS, plan(PODS, HEALTHY, 3))
    answers: dict[str, NodeRole | None] = dict(HEALTHY)
    if gone == "unready":
        before[1] = replace(before[1], ready=False)
    else:
        answers["uid-noti-1"] = None
    after = apply(before, plan(before, answers, 3))
    assert roles(after)["noti-1"] is None
    assert serving(after) == {"noti-2"}


def test_when_nobody_answers_ready_pods_keep_their_browsers_without_roles() -> None:
    before = apply(PODS, plan(PODS, HEALTHY, 3))
    after = apply(before, plan(before, dict.fromkeys(HEALTHY), 3))
    assert set(roles(after).values()) == {None}
    assert serving(after) == set(NAMES)


def test_a_pod_that_was_not_asked_yet_is_left_alone_and_counts_as_somebody_who_may_serve() -> None:
    done = plan(PODS, dict([says("noti-0", "leader", 5)]), 3)
    assert set(done.patches) == {"noti-0"}
    assert serving(apply(PODS, done)) == set()


def test_a_label_of_a_higher_term_is_not_overwritten() -> None:
    before = apply(PODS, plan(PODS, HEALTHY | dict([says("noti-2", "leader", 7)]), 3))
    answers: dict[str, NodeRole | None] = {**HEALTHY, "uid-noti-2": None}
    done = plan(before, answers, 3)
    assert set(done.patches) <= {"noti-2"}
    assert roles(apply(before, done))["noti-0"] == "follower"


def test_a_cluster_that_was_founded_anew_is_believed_when_all_of_it_answers() -> None:
    before = apply(PODS, plan(PODS, HEALTHY | dict([says("noti-2", "leader", 70)]), 3))
    done = plan(before, HEALTHY, 3)
    assert roles(apply(before, done))["noti-0"] == "leader"
    assert plan(before, HEALTHY, 5).patches == {}


def test_two_claims_to_one_term_are_none() -> None:
    answers = HEALTHY | dict([says("noti-1", "leader", 5)])
    assert plan(PODS, answers, 3).leader == ""


def test_a_leader_that_was_asked_before_its_first_election_leads() -> None:
    answers = HEALTHY | dict([says("noti-0", "follower", 0)])
    done = plan(PODS, answers, 3)
    assert (done.leader, done.term) == ("noti-0", 5)


def test_no_pods_need_nothing() -> None:
    assert plan([], {}, 0) == Plan("", 0, 0, {})


@pytest.mark.parametrize("written", ["", "x", "-1", "1.5", "٣"])
def test_an_annotation_that_is_no_term_is_replaced(written: str) -> None:
    odd = [replace(one, annotations={TERM_ANNOTATION: written}) for one in PODS]
    assert {one.annotations[TERM_ANNOTATION] for one in apply(odd, plan(odd, HEALTHY, 3))} == {"5"}


ANSWERS = st.none() | st.builds(
    NodeRole,
    st.just(""),
    st.sampled_from(["leader", "follower", "candidate", "learner"]),
    st.integers(0, 4),
    st.sampled_from(["", *NAMES, "stranger"]),
)
LABELS = st.dictionaries(
    st.sampled_from([*ROLE_LABELS, SERVE_LABEL, "app"]), st.sampled_from(["leader", "true", "x"])
)


@promises.LABELS_FOLLOW_LEADER
@given(
    st.lists(st.tuples(st.booleans(), LABELS, st.integers(0, 5)), min_size=1, max_size=3),
    st.lists(ANSWERS, min_size=3, max_size=3),
    st.integers(0, 3),
)
def test_whatever_pods_report_one_leads_at_most_and_somebody_serves(
    states: list[tuple[bool, dict[str, str], int]],
    said: list[NodeRole | None],
    replicas: int,
) -> None:
    pods = [
        replace(
            pod(name, **labels),
            ready=ready,
            annotations={TERM_ANNOTATION: str(term)} if term else {},
        )
        for name, (ready, labels, term) in zip(NAMES, states, strict=False)
    ]
    answers = {f"uid-{name}": answer for name, answer in zip(NAMES, said, strict=True)}
    done = plan(pods, answers, replicas)
    after = apply(pods, done)
    touched = [one for one in after if one.name in done.patches]
    leading = {one.name for one in touched if one.labels.get(ROLE_LABELS[0]) == "leader"}
    assert leading <= {done.leader}
    for before, now in zip(pods, after, strict=True):
        assert now.labels.get("app") == before.labels.get("app")
        if not now.ready:
            assert SERVE_LABEL not in now.labels
            assert not set(ROLE_LABELS) & set(now.labels)
    assert plan(after, answers, replicas).patches == {}, "a plan that was carried out is done"
    frozen = any(one.annotations.get(TERM_ANNOTATION, "0") > str(done.term) for one in pods)
    if any(one.ready for one in pods) and not frozen:
        assert serving(after)
