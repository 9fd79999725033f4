"""What a LeaderStatusChecker tells people, and what it may ask for."""

from typing import Any

import pytest

from noti.errors import ConfigInvalid
from noti.kubernetes import status
from noti.kubernetes.labels import Plan
from noti.kubernetes.objects import Object, Pod, Spec, read_pod, read_spec
from noti.kubernetes.status import Condition

GOOD = {"statefulSetName": "noti", "namespace": "shop", "rpcPort": 8400, "localDev": False}
NOW = "2026-01-01T00:00:00Z"
LEADS = Condition("LeaderKnown", "noti-0 leads in term 5; 3 of 3 pods answer", "noti-0", 5)


def checker(**parts: Any) -> Object:
    metadata = {
        "name": "noti",
        "namespace": "shop",
        "uid": "u",
        "generation": 3,
        "resourceVersion": "9",
    }
    return {"metadata": metadata, "spec": GOOD, **parts}


def patched(condition: Condition, before: Object | None = None, now: str = NOW) -> Object:
    patch = status.status_patch(checker(status=before), condition, now, labelled=False)
    assert patch is not None
    done: Object = {**(before or {}), **patch["status"]}
    return done


def conditions(of: Object) -> dict[str, Object]:
    return {one["type"]: one for one in of["conditions"]}


def test_a_status_has_what_its_predecessor_had_and_conditions() -> None:
    done = patched(LEADS)
    assert (done["leaderNode"], done["lastUpdated"], done["term"]) == ("noti-0", NOW, 5)
    assert done["observedGeneration"] == 3
    assert {name: one["status"] for name, one in conditions(done).items()} == {
        "Accepted": "True",
        "Ready": "True",
    }


def test_a_status_that_is_right_is_not_written_unless_labels_changed() -> None:
    done = checker(status=patched(LEADS))
    assert status.status_patch(done, LEADS, "later", labelled=False) is None
    assert status.status_patch(done, LEADS, "later", labelled=True) == {
        "status": {"lastUpdated": "later"}
    }


def test_a_condition_keeps_the_time_of_its_last_change_and_those_of_others_stay() -> None:
    foreign = {"type": "Audited", "status": "True"}
    before = patched(LEADS, {"conditions": [foreign]})
    after = patched(Condition("NoLeader", "no leader is known"), before, "later")
    assert conditions(after)["Audited"] == foreign
    assert conditions(after)["Accepted"]["lastTransitionTime"] == NOW
    assert conditions(after)["Ready"]["lastTransitionTime"] == "later"
    assert conditions(after)["Ready"]["status"] == "False"
    assert after["leaderNode"] == ""


@pytest.mark.parametrize("reason", ["SpecInvalid", "StatefulSetMissing", "Forbidden"])
def test_what_cannot_be_worked_with_is_not_accepted(reason: Any) -> None:
    done = conditions(patched(Condition(reason, "why")))
    assert done["Accepted"]["status"] == done["Ready"]["status"] == "False"
    assert done["Accepted"]["reason"] == reason
    assert done["Accepted"]["message"] == "why"


@pytest.mark.parametrize(
    ("plan", "pods", "ready", "reason"),
    [
        (Plan("noti-0", 5, 3, {}), 3, 3, "LeaderKnown"),
        (Plan("", 5, 2, {}), 3, 2, "NoLeader"),
        (Plan("", 0, 0, {}), 3, 1, "NoAnswer"),
        (Plan("", 0, 0, {}), 3, 0, "NoneReady"),
        (Plan("", 0, 0, {}), 0, 0, "NoPods"),
    ],
)
def test_a_plan_is_reported_in_one_word(plan: Plan, pods: int, ready: int, reason: str) -> None:
    assert status.condition_of(plan, pods, ready).reason == reason


def test_an_event_points_at_the_checker() -> None:
    event = status.event(checker(), LEADS, name="noti.1", now=NOW, reporter="operator-1")
    assert event["metadata"] == {"name": "noti.1", "namespace": "shop"}
    assert event["involvedObject"]["uid"] == "u"
    assert (event["type"], event["reason"]) == ("Normal", "LeaderKnown")
    bad = status.event(
        checker(), Condition("Forbidden", "x"), name="noti.2", now=NOW, reporter="operator-1"
    )
    assert bad["type"] == "Warning"


def test_what_was_reported_before_is_read_off_the_status() -> None:
    assert status.reported_before(checker()) == ("", "")
    assert status.reported_before(checker(status=patched(LEADS))) == ("LeaderKnown", "noti-0")


def test_a_good_spec_is_read() -> None:
    assert read_spec(checker()) == Spec("noti", "shop", 8400, False)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"statefulSetName": ""}, "spec.statefulSetName is ''"),
        ({"statefulSetName": "a/b"}, "spec.statefulSetName"),
        ({"statefulSetName": ".."}, "spec.statefulSetName"),
        ({"namespace": None}, "spec.namespace is None"),
        ({"rpcPort": 0}, "spec.rpcPort is 0: give it 1 to 65535"),
        ({"rpcPort": True}, "spec.rpcPort"),
        ({"rpcPort": "8400"}, "spec.rpcPort is '8400'"),
        ({"rpcPort": 70000}, "spec.rpcPort"),
        ({"localDev": "no"}, "spec.localDev"),
    ],
)
def test_a_spec_that_cannot_work_is_rejected_with_the_field(wrong: Object, told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told):
        read_spec(checker(spec={**GOOD, **wrong}))


@pytest.mark.parametrize("spec", [None, [], "x"])
def test_a_checker_without_a_spec_is_rejected(spec: object) -> None:
    with pytest.raises(ConfigInvalid, match="no spec"):
        read_spec(checker(spec=spec))


@pytest.mark.parametrize(
    ("name", "local", "address"),
    [
        ("noti-2", False, ("10.0.0.1", 8400)),
        ("noti-0", True, ("127.0.0.1", 8400)),
        ("noti-2", True, ("127.0.0.1", 8600)),
        ("noti-x", True, ("127.0.0.1", 8400)),
    ],
)
def test_a_pod_is_asked_at_its_ip_or_at_a_forwarded_port(
    name: str, local: bool, address: tuple[str, int]
) -> None:
    pod = Pod(name, "u", "1", "10.0.0.1", True, {}, {})
    assert Spec("noti", "shop", 8400, local).address(pod) == address


READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("metadata", "pod_status", "ready"),
    [
        ({}, {"conditions": READY, "podIP": "10.0.0.1"}, True),
        ({}, {"conditions": READY}, False),
        ({}, {"podIP": "10.0.0.1"}, False),
        ({}, None, False),
        ({"deletionTimestamp": NOW}, {"conditions": READY, "podIP": "10.0.0.1"}, False),
        (
            {},
            {"conditions": [{"type": "Ready", "status": "False"}], "podIP": "10.0.0.1"},
            False,
        ),
    ],
)
def test_a_pod_is_ready_when_kubernetes_sends_it_traffic(
    metadata: Object, pod_status: Object | None, ready: bool
) -> None:
    whole = {"name": "noti-0", "uid": "u", "resourceVersion": "1", **metadata}
    assert read_pod({"metadata": whole, "status": pod_status}).ready is ready
