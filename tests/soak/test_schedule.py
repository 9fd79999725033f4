from itertools import islice

import pytest

from tests.soak.schedule import BURSTS, HARMFUL, LATE, NEED_NAMESPACES, Kind, episodes, size_of

MANY = 300


@pytest.mark.parametrize("nodes", [3, 4, 5])
@pytest.mark.parametrize("seed", range(5))
def test_at_most_a_minority_is_harmed_at_one_time(seed: int, nodes: int) -> None:
    size = size_of(60, nodes, namespaces=True)
    for episode in islice(episodes(seed, size), MANY):
        kinds = [fault.kind for fault in episode.faults]
        harmful = [kind for kind in kinds if kind in HARMFUL]
        assert len(harmful) <= (nodes - 1) // 2
        assert not (harmful and Kind.ROLL in kinds), "a rolling restart harms one node at a time"
        assert sum(fault.leads for fault in episode.faults if fault.kind in HARMFUL) <= 1


def test_the_same_seed_gives_the_same_schedule() -> None:
    size = size_of(10, 5, namespaces=True)
    first, again = (list(islice(episodes(42, size), MANY)) for _ in range(2))
    assert first == again
    assert first != list(islice(episodes(43, size), MANY))


def test_every_kind_comes_before_any_comes_again() -> None:
    size = size_of(2, 3, namespaces=True)
    for seed in range(20):
        first = [episode.faults[0].kind for episode in islice(episodes(seed, size), len(Kind))]
        assert set(first) == set(Kind)


def test_without_namespaces_nothing_is_asked_for_that_needs_them() -> None:
    size = size_of(60, 3, namespaces=False)
    kinds = {fault.kind for one in islice(episodes(1, size), MANY) for fault in one.faults}
    assert kinds == set(Kind) - NEED_NAMESPACES


def test_with_a_short_history_no_node_comes_back_with_old_requests() -> None:
    size = size_of(60, 5, namespaces=True, short_history=True)
    kinds = {fault.kind for one in islice(episodes(1, size), MANY) for fault in one.faults}
    assert kinds == set(Kind) - LATE


def test_outages_bursts_and_calm_are_as_long_as_the_run_allows() -> None:
    long = size_of(60, 3, namespaces=True)
    for size in (size_of(1, 3, namespaces=True), long):
        for episode in islice(episodes(7, size), MANY):
            assert 0 < episode.calm_s <= size.calm_s_max
            for fault in episode.faults:
                assert fault.seconds <= size.outage_s_max
                assert (fault.events > 0) is (fault.kind in BURSTS)
    assert long.outage_s_max == 30
    assert long.rpc_burst == 50_000


def test_leaders_are_struck_and_others_too() -> None:
    size = size_of(60, 3, namespaces=True)
    leads = [
        fault.leads
        for one in islice(episodes(3, size), MANY)
        for fault in one.faults
        if fault.kind is Kind.PAUSE
    ]
    assert set(leads) == {True, False}
