"""What is logged and counted about gossip, and how a flood is not."""

import trio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from trio.testing import MockClock

from noti.swim.core.events import (
    HealthChanged,
    MemberChanged,
    QueryReceived,
    RanLate,
    StreamOnlyChanged,
    UserEventReceived,
)
from noti.swim.core.messages import Member, MemberState
from noti.swim.reporting import CHANGES_LOGGED_MAX, REASONS, GossipReporter
from noti.throttled_log import INTERVAL_S
from tests.simulation.memory_gossip import VirtualClock


def member(name: str, state: MemberState) -> Member:
    return Member(name, ("10.0.0.1", 1), {}, state, 1)


def by_state() -> dict[str, float | None]:
    return {
        state.name.lower(): REGISTRY.get_sample_value(
            "noti_swim_members", {"state": state.name.lower()}
        )
        for state in MemberState
    }


async def test_members_are_counted_by_state(autojump_clock: MockClock) -> None:
    reporter = GossipReporter(VirtualClock())
    reporter.begin()
    for name in ("a", "b"):
        reporter.report_change(MemberChanged(member(name, MemberState.ALIVE), None))
    reporter.report_change(MemberChanged(member("a", MemberState.SUSPECT), MemberState.ALIVE))
    assert by_state() == {"alive": 2, "suspect": 1, "dead": 0, "left": 0}
    reporter.report_change(MemberChanged(member("a", MemberState.DEAD), MemberState.SUSPECT))
    gone = MemberChanged(member("a", MemberState.DEAD), MemberState.DEAD, forgotten=True)
    reporter.report_change(gone)
    assert by_state() == {"alive": 2, "suspect": 0, "dead": 0, "left": 0}


async def test_flood_of_changes_is_counted_and_not_logged(autojump_clock: MockClock) -> None:
    reporter = GossipReporter(VirtualClock())
    reporter.begin()
    change = MemberChanged(member("a", MemberState.ALIVE), None)
    with capture_logs() as lines:
        for _ in range(CHANGES_LOGGED_MAX + 100):
            reporter.report_change(change)
    assert len(lines) == CHANGES_LOGGED_MAX + 1
    assert by_state()["alive"] == CHANGES_LOGGED_MAX + 101
    await trio.sleep(INTERVAL_S)
    with capture_logs() as lines:
        reporter.report_change(change)
    assert len(lines) == 1


async def test_the_same_problem_is_throttled_and_counted_each_time(
    autojump_clock: MockClock,
) -> None:
    reporter = GossipReporter(VirtualClock())
    labels = {"reason": "incarnation"}
    before = REGISTRY.get_sample_value("noti_swim_packets_rejected_total", labels) or 0.0
    with capture_logs() as lines:
        for _ in range(3):
            reporter.reject("incarnation", "incarnation", "too high")
        await trio.sleep(INTERVAL_S)
        reporter.reject("incarnation", "incarnation", "too high")
    assert len(lines) == 2
    assert REGISTRY.get_sample_value("noti_swim_packets_rejected_total", labels) == before + 4


def test_every_reason_is_counted_from_zero() -> None:
    for reason in REASONS:
        labels = {"reason": reason}
        assert REGISTRY.get_sample_value("noti_swim_packets_rejected_total", labels) is not None


async def test_own_health_and_members_behind_a_firewall_are_shown(
    autojump_clock: MockClock,
) -> None:
    reporter = GossipReporter(VirtualClock())
    late = REGISTRY.get_sample_value("noti_swim_late_total") or 0.0
    with capture_logs() as lines:
        reporter.report(HealthChanged(3))
        reporter.report(StreamOnlyChanged(2))
        reporter.report(RanLate(1.5))
    assert REGISTRY.get_sample_value("noti_swim_health_score") == 3
    assert REGISTRY.get_sample_value("noti_swim_members_tcp_only") == 2
    assert REGISTRY.get_sample_value("noti_swim_late_total") == late + 1
    assert [line["late_s"] for line in lines] == ["1.5"]


async def test_each_event_and_query_is_counted_and_a_flood_of_them_is_one_line(
    autojump_clock: MockClock,
) -> None:
    def counts() -> list[float]:
        names = ("user_events", "queries")
        return [
            REGISTRY.get_sample_value(f"noti_swim_{name}_received_total") or 0.0 for name in names
        ]

    before = counts()
    reporter = GossipReporter(VirtualClock())
    with capture_logs() as logs:
        for number in range(100):
            reporter.report(UserEventReceived(f"event {number}", 7))
            reporter.report(QueryReceived(f"query {number}", "n2"))
    assert counts() == [count + 100 for count in before]
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("debug", "user event received"),
        ("debug", "query received"),
    ]
