"""What ails a node is told when it begins and when it ends, and shown as long as it lasts."""

from dataclasses import replace

import pytest
import structlog
from prometheus_client import REGISTRY

import noti.kubernetes.metrics  # noqa: F401
from noti.authorization import authorizer, jwks  # noqa: F401 - with their metrics
from noti.publishing import publisher  # noqa: F401
from noti.raft import forwarder, peers  # noqa: F401
from noti.raft.core.events import (
    CommitStalled,
    DiskHung,
    DiskOutdated,
    MessageRejected,
    Role,
    VoterForgot,
)
from noti.raft.core.membership import Configuration
from noti.raft.core.status import Status
from noti.raft.health import (
    LEADERLESS_GRACE_S,
    LOOK_EVERY_S,
    REPORT_AFTER_S,
    SEEN_FOR_S,
    Health,
    Kind,
)
from tests.simulation.clocks import MachineClock

LED = Status(
    role=Role.FOLLOWER,
    term=3,
    leader="b",
    commit_index=9,
    applied_index=9,
    last_index=9,
    first_index=1,
    configuration=Configuration("c", ("a", "b", "d")),
    configuration_index=1,
    followers=(),
    leads_ready=False,
    fresh_at=0.0,
)


class HandClock(MachineClock):
    """Shows what the test says."""

    time = 0.0

    def now(self) -> float:
        return self.time

    def wall_ms(self) -> int:
        return round(1000 * self.time)


class Patient:
    """A node's health, with a clock of its own."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.health = Health(self.clock)

    def look(self, at: float, status: Status) -> tuple[Kind, ...]:
        self.clock.time = at
        self.health.look(status)
        return tuple(trouble.kind for trouble in self.health.troubles())


def lines(logs: list[structlog.typing.EventDict]) -> list[str]:
    return [f"{line['log_level']} {line['event']}" for line in logs]


def test_lost_quorum_is_logged_once_when_it_lasts_and_once_when_it_is_over() -> None:
    patient, lost = Patient(), replace(LED, leader=None)
    patient.look(10.0, replace(LED, fresh_at=10.0))
    with structlog.testing.capture_logs() as logs:
        assert patient.look(11.0, lost) == (Kind.QUORUM,)
        assert patient.health.look_at == 11.0 + LOOK_EVERY_S
        for seconds in (1.0, REPORT_AFTER_S, 3.0, 4.0):
            patient.look(11.0 + seconds, lost)
        [trouble] = patient.health.troubles()
        assert (trouble.for_s, trouble.since_ms) == (4.0, 11_000)
        patient.look(16.0, replace(LED, fresh_at=16.0))
    begun, over = logs
    assert begun["event"].startswith("no contact with a leader")
    assert (over["event"], over["after_s"]) == ("in contact with a leader again", 5.0)


def test_stranger_reports_that_it_waits_for_a_cluster_and_not_for_a_leader() -> None:
    patient = Patient()
    stranger = replace(LED, leader=None, fresh_at=None, configuration=Configuration())
    with structlog.testing.capture_logs() as logs:
        assert patient.look(1.0, stranger) == (Kind.CLUSTER,)
        patient.look(REPORT_AFTER_S, stranger)
        assert patient.look(9.0, replace(LED, fresh_at=9.0)) == ()
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    assert logs[0]["event"].startswith("this node belongs to no cluster yet")


def test_mere_election_is_no_line() -> None:
    patient = Patient()
    patient.look(10.0, replace(LED, fresh_at=10.0))
    with structlog.testing.capture_logs() as logs:
        patient.look(11.0, replace(LED, leader=None))
        patient.look(11.5, replace(LED, fresh_at=11.5))
    assert logs == []
    assert patient.health.troubles() == ()


def test_node_that_was_healthy_is_looked_at_again_in_a_moment_or_when_something_happens() -> None:
    patient = Patient()
    health = patient.health
    assert not health.seen_healthy()
    for happens in (DiskHung(8.0), None):
        patient.look(8.0, replace(LED, fresh_at=8.0))
        assert health.seen_healthy()
        if happens is not None:
            health.note(happens)
        else:
            health.role_changed(Role.CANDIDATE, 4)
        assert not health.seen_healthy()
    patient.look(9.0, replace(LED, fresh_at=9.0))
    patient.clock.time = 9.0 + SEEN_FOR_S
    assert not health.seen_healthy()
    patient.look(9.5, replace(LED, fresh_at=9.0, disk_hung_since=9.2))
    assert not health.seen_healthy()
    patient.look(9.0 + LEADERLESS_GRACE_S, replace(LED, fresh_at=9.0))
    assert not health.seen_healthy(), "it is out of touch"


def test_hung_disk_is_logged_at_once_and_shown_since_it_was_asked() -> None:
    patient = Patient()
    hung = replace(LED, fresh_at=10.0, disk_hung_since=9.0)
    with structlog.testing.capture_logs() as logs:
        patient.look(8.0, replace(LED, fresh_at=8.0))
        assert patient.look(10.0, hung) == (Kind.DISK,)
        patient.look(10.5, hung)
        assert REGISTRY.get_sample_value("noti_trouble_since_seconds", {"trouble": "disk"}) == 9.0
        patient.look(12.0, replace(LED, fresh_at=12.0))
        assert REGISTRY.get_sample_value("noti_trouble_since_seconds", {"trouble": "disk"}) == 0.0
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    assert logs[1] == {"log_level": "info", "event": "the disk answers again", "after_s": 3.0}


def test_node_that_falls_behind_its_leader_is_out_of_touch_and_reports_since_when() -> None:
    patient = Patient()
    patient.look(10.0, replace(LED, fresh_at=10.0))
    stale = replace(LED, fresh_at=None)
    assert patient.look(10.0 + LEADERLESS_GRACE_S - 0.1, stale) == ()
    assert patient.health.in_touch()
    assert patient.look(10.0 + LEADERLESS_GRACE_S, stale) == (Kind.BEHIND,)
    assert not patient.health.in_touch()
    assert patient.health.troubles()[0].for_s == LEADERLESS_GRACE_S


def test_outdated_disk_is_an_error_that_names_the_remedy() -> None:
    patient = Patient()
    patient.health.note(DiskOutdated(acknowledged=90, holds=40))
    text = str(patient.health.outdated)
    assert "ends at log entry 40" in text
    assert "up to 90" in text
    assert "delete it and let the node join again as a new one" in text
    assert "\n" not in text


def test_what_the_core_notices_of_others_is_one_line_each() -> None:
    patient = Patient()
    with structlog.testing.capture_logs() as logs:
        patient.health.note(VoterForgot("d", 90, 40))
        patient.health.note(CommitStalled("no majority answers"))
        for second in range(5):
            patient.clock.time = float(second)
            patient.health.note(MessageRejected("d", "nonsense"))
    assert [line["log_level"] for line in logs] == ["error", "warning", "warning"]
    assert (logs[0]["peer"], logs[0]["acknowledged"], logs[0]["holds"]) == ("d", 90, 40)
    assert logs[1]["reason"] == "no majority answers"


@pytest.mark.parametrize(("role", "outcome"), [(Role.CANDIDATE, "started"), (Role.LEADER, "won")])
def test_elections_are_counted_from_zero(role: Role, outcome: str) -> None:
    def count() -> float:
        value = REGISTRY.get_sample_value("noti_raft_elections_total", {"outcome": outcome})
        assert value is not None
        return value

    before = count()
    Patient().health.role_changed(role, 1)
    assert count() == before + 1


def test_gauges_report_the_last_contact_and_what_each_peer_has() -> None:
    def match(peer: str) -> float | None:
        return REGISTRY.get_sample_value("noti_raft_match_index", {"peer": peer})

    patient = Patient()
    patient.look(10.0, replace(LED, last_contact_at=8.5))
    assert REGISTRY.get_sample_value("noti_raft_leader_contact_seconds") == 1.5
    leads = replace(LED, role=Role.LEADER, leads_ready=True, followers=(("b", 9), ("d", 4)))
    patient.look(12.0, leads)
    assert REGISTRY.get_sample_value("noti_raft_leader_contact_seconds") == 0.0
    assert (match("b"), match("d")) == (9, 4)
    patient.look(14.0, replace(leads, role=Role.FOLLOWER, followers=()))
    assert match("b") is None, "a follower knows nothing of others"


def test_gauges_count_the_nodes_that_the_cluster_consists_of() -> None:
    """So that an alert knows how many there should be."""
    patient = Patient()
    patient.look(10.0, replace(LED, configuration=Configuration("c", ("a", "b"), (), ("d",))))
    for vote, count in (("yes", 2), ("no", 1)):
        assert REGISTRY.get_sample_value("noti_raft_nodes", {"vote": vote}) == count


@pytest.mark.parametrize(
    ("metric", "label", "values"),
    [
        ("noti_raft_elections_total", "outcome", ["started", "won"]),
        ("noti_raft_forwarded_total", "outcome", ["done", "not_leader", "overloaded", "uncertain"]),
        ("noti_raft_messages_dropped_total", "reason", ["outbox_full", "no_stream"]),
        ("noti_raft_messages_rejected_total", "reason", ["wrong_name", "invalid", "wrong_sender"]),
        ("noti_trouble_since_seconds", "trouble", ["cluster", "quorum", "disk", "behind"]),
        ("noti_publish_rejected_total", "reason", ["NotLeader", "Overloaded", "ProposalUncertain"]),
        ("noti_jwks_fetches_total", "outcome", ["ok", "failed"]),
        ("noti_tokens_rejected_total", "reason", ["missing", "invalid", "insufficient"]),
        ("noti_operator_role_questions_total", "answered", ["yes", "no"]),
        ("noti_operator_api_failures_total", "kind", ["KubernetesFailed", "ObjectConflict"]),
    ],
)
def test_metrics_exist_before_anything_happened(metric: str, label: str, values: list[str]) -> None:
    """An alert on a rate misses the first event of a series that comes with it."""
    for value in values:
        assert REGISTRY.get_sample_value(metric, {label: value}) is not None
