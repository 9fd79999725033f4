"""How fast a leader takes events in, in a model of hubs that send so many bytes a second."""

import math
from dataclasses import dataclass, field

import pytest

from noti.raft.core.messages import BACKLOG_MAX
from noti.raft.core.pacing import (
    DISREGARDED_S,
    DISREGARDED_S_MAX,
    EASY,
    FLOOR_BYTES_PER_S,
    FULL,
    Pacing,
    pressure_of,
    report_of,
)
from tests import promises

MIB = 1024 * 1024
STEP_S = 0.005
HEARTBEAT_S = 0.1


@dataclass
class Hub:
    """One node's clients."""

    sends_bytes_per_s: float
    """0: it has no clients."""
    bound_bytes: float = 64 * MIB
    lies: bool = False
    backlog: float = 0.0
    peak: float = 0.0

    def report(self) -> int:
        if self.lies:
            return BACKLOG_MAX
        return report_of(self.backlog / self.bound_bytes, int(self.sends_bytes_per_s > 0))

    def goes_on(self, seconds: float, published_bytes: float) -> None:
        if self.sends_bytes_per_s:
            sent = self.sends_bytes_per_s * seconds
            self.backlog = max(0.0, self.backlog + published_bytes - sent)
            self.peak = max(self.peak, self.backlog / self.bound_bytes)


@dataclass
class Model:
    """Publishers with so many commands under way, whatever becomes of them; a leader; hubs."""

    hubs: list[Hub]
    command_bytes: int = 20_000
    commands: int = 6
    offered_bytes_per_s: float = math.inf
    pacing: Pacing = field(default_factory=lambda: Pacing(10.0, reported_within_s=0.5))
    now: float = 0.0
    passed_bytes: int = 0
    longest_wait_s: float = 0.0
    given_up: list[tuple[int, str]] = field(default_factory=list)
    """(second, node)."""

    def __post_init__(self) -> None:
        self._waiting = [0.0] * self.commands
        self._heartbeat_at = 0.0
        self._offered = 0.0

    def run(self, seconds: float) -> float:
        """Return how many bytes passed a second."""
        before, end = self.passed_bytes, self.now + seconds
        while self.now < end:
            self.step()
        return (self.passed_bytes - before) / seconds

    def step(self) -> None:
        passed = self.let_pass()
        for hub in self.hubs:
            hub.goes_on(STEP_S, passed)
        if passed or self.now >= self._heartbeat_at:
            self._heartbeat_at = self.now + HEARTBEAT_S
            for number, hub in enumerate(self.hubs):
                self.pacing.reported(str(number), hub.report(), self.now)
        for node in self.pacing.look(self.now, holding=bool(self._waiting)):
            self.given_up.append((round(self.now), node))
        self.now += STEP_S

    def let_pass(self) -> int:
        """Return the bytes of one step; whoever got something through comes again at once."""
        passed = 0
        offered = self._offered + self.offered_bytes_per_s * STEP_S
        self._offered = min(offered, self.commands * self.command_bytes)
        for _ in range(self.commands):
            if self._offered < self.command_bytes or not self.pacing.may_pass(self.now):
                break
            self.longest_wait_s = max(self.longest_wait_s, self.now - self._waiting.pop(0))
            self._waiting.append(self.now)
            self.pacing.passed(self.command_bytes, self.now)
            self._offered -= self.command_bytes
            passed += self.command_bytes
        self.passed_bytes += passed
        return passed


def test_nothing_is_slowed_down_while_all_can_follow() -> None:
    model = Model([Hub(20e6), Hub(20e6), Hub(20e6)], offered_bytes_per_s=10e6)
    assert model.run(20) == pytest.approx(10e6, rel=0.01)
    assert model.given_up == []


@promises.PUBLISHERS_SLOWED_FIRST
@pytest.mark.parametrize(
    ("sends", "bound"),
    [
        (150e3, 1 * MIB),
        (450e3, 1 * MIB),
        (150e3, 64 * MIB),
        (450e3, 64 * MIB),
        (2e6, 64 * MIB),
        (10e6, 64 * MIB),
        (450e3, 512 * MIB),
    ],
)
def test_throughput_levels_off_at_what_hubs_send(sends: float, bound: float) -> None:
    """Far below the bound, and nobody waits for long: late browsers, slow publishers."""
    model = Model([Hub(sends, bound) for _ in range(3)])
    model.run(60)
    assert model.run(20) == pytest.approx(sends, rel=0.05)
    assert max(hub.peak for hub in model.hubs) < 0.5
    assert model.longest_wait_s < 5.0
    assert model.given_up == []


@pytest.mark.parametrize("others", [0, 2])
def test_nodes_are_waited_for_as_long_as_at_least_half_of_them_cannot_follow(others: int) -> None:
    """Whoever has no readers has no say; who is alone with them is no minority."""
    model = Model([Hub(450e3), Hub(0), Hub(0)] if not others else [Hub(450e3)] * 2 + [Hub(2e6)])
    model.run(200)
    assert model.given_up == []
    assert model.run(20) == pytest.approx(450e3, rel=0.05)


def test_one_slow_node_among_fast_ones_holds_them_back_for_a_bounded_time() -> None:
    model = Model([Hub(150e3), Hub(2e6), Hub(2e6)], offered_bytes_per_s=1.5e6)
    assert model.run(10) < 1e6
    model.run(2)
    assert [node for _, node in model.given_up] == ["0"]
    assert model.run(50) == pytest.approx(1.5e6, rel=0.02)


def test_the_median_is_what_counts_in_the_long_run() -> None:
    model = Model([Hub(300e3), Hub(450e3), Hub(600e3)])
    model.run(50)
    assert model.run(30) == pytest.approx(450e3, rel=0.05)
    assert {node for _, node in model.given_up} == {"0"}
    assert model.hubs[1].peak < 0.1


@promises.PUBLISHERS_SLOWED_FIRST
@pytest.mark.parametrize("readers", [0, 20e6])
def test_liar_costs_a_bounded_time_less_and_less_often(readers: float) -> None:
    model = Model([Hub(20e6, lies=True), Hub(readers), Hub(readers)], offered_bytes_per_s=1e6)
    model.run(10.5)
    for pause_s in (DISREGARDED_S, 2 * DISREGARDED_S, 4 * DISREGARDED_S):
        assert model.run(pause_s - 2) == pytest.approx(1e6, rel=0.05)
        model.run(12.1)
    assert len(model.given_up) == 4


def test_what_a_minority_holds_back_is_at_most_three_quarters() -> None:
    model = Model([Hub(20e6), Hub(20e6), Hub(20e6)], offered_bytes_per_s=1e6)
    model.run(20)
    model.hubs[0].lies = True
    assert model.run(9) == pytest.approx(0.25e6, rel=0.3)


def test_floor_always_passes() -> None:
    """Even when all are full and nothing gets less, and commands are as large as they may be."""
    for command_bytes in (300, 8 * MIB):
        model = Model([Hub(1.0, lies=True) for _ in range(3)], command_bytes)
        model.run(1)
        assert model.run(40) >= FLOOR_BYTES_PER_S * 0.9
        assert model.longest_wait_s < 4.0 * model.commands + 1


def test_node_on_its_way_back_from_a_burst_is_waited_for() -> None:
    """With clients on one node only it is no minority of those with readers, but one of all."""
    model = Model([Hub(200e3), Hub(0), Hub(0)])
    model.hubs[0].backlog = 20 * MIB
    model.run(100)
    assert model.given_up == []
    assert model.hubs[0].backlog < 8 * MIB


def test_node_at_the_floor_that_gets_nowhere_is_waited_for_no_longer() -> None:
    model = Model([Hub(1.0, lies=True), Hub(0), Hub(0)])
    model.run(9)
    assert model.given_up == []
    model.run(2)
    assert [node for _, node in model.given_up] == ["0"]


def test_nobody_is_given_up_while_nothing_waits() -> None:
    pacing = Pacing(10.0, reported_within_s=0.5)
    for tenth in range(1000):
        pacing.reported("a", BACKLOG_MAX, tenth / 10)
        pacing.reported("b", 1, tenth / 10)
        assert pacing.look(tenth / 10, holding=False) == []


def test_node_that_does_not_report_does_not_count_and_neither_does_one_that_is_lost() -> None:
    pacing = Pacing(10.0, reported_within_s=0.5)
    pacing.reported("a", BACKLOG_MAX, 0.0)
    assert not pacing.at_ease
    pacing.look(0.4, holding=True)
    assert not pacing.at_ease
    pacing.look(0.6, holding=True)
    assert pacing.at_ease
    assert pacing.pressures(0.6) == {}
    pacing.reported("a", BACKLOG_MAX, 1.0)
    assert not pacing.at_ease
    pacing.lost("a", 1.1)
    assert pacing.at_ease


def test_penalty_grows_to_a_limit_and_ends_when_the_node_is_at_ease() -> None:
    pacing = Pacing(1.0, reported_within_s=math.inf)
    pauses, now = [], 0.0

    def pause_s() -> float:
        nonlocal now
        pacing.reported("a", BACKLOG_MAX, now)
        pacing.reported("b", 1, now)
        while not (given_up := pacing.look(now, holding=True)):
            now += 0.1
        assert given_up == ["a"]
        lasts_s = pacing.penalty_s("a", now)
        now += lasts_s + 0.1
        return lasts_s

    pauses = [pause_s() for _ in range(6)]
    assert pauses == pytest.approx([60, 120, 240, 480, DISREGARDED_S_MAX, DISREGARDED_S_MAX])
    pacing.reported("a", 1, now)
    pacing.look(now, holding=True)
    assert pause_s() == pytest.approx(DISREGARDED_S)


def test_new_leadership_knows_nothing() -> None:
    pacing = Pacing(10.0, reported_within_s=0.5)
    pacing.reported("a", BACKLOG_MAX, 0.0)
    pacing.clear()
    assert pacing.at_ease
    assert pacing.pressures(0.0) == {}


def test_report_holds_that_there_are_clients_and_how_full_it_is() -> None:
    assert report_of(0.7, clients=0) == 0
    assert report_of(math.nan, clients=1) == 1
    assert report_of(0.0, clients=1) == 1 <= EASY
    assert report_of(1 / 64, clients=1) > EASY
    assert report_of(1 / 16, clients=1) >= FULL - 1
    assert report_of(1.0, clients=1) == report_of(7.5, clients=1) == BACKLOG_MAX
    assert pressure_of(0) == pressure_of(1) == 0.0
    assert pressure_of(report_of(0.5, clients=1)) == pytest.approx(0.5, abs=0.01)
