"""Counts of many clients, added up over processes."""

import json
from collections import Counter

from tests.bench.load.tally import DELAY_STEP_NS, Tally


def tally(*delays_ms: int) -> Tally:
    steps = Counter(delay * 1_000_000 // DELAY_STEP_NS for delay in delays_ms)
    return Tally(events=len(delays_ms), lost=1, delays=steps)


def test_percentiles_are_nearest_rank_and_never_flatter() -> None:
    counted = tally(*range(1, 101))
    assert counted.delay_ms(0.5) == 50.02
    assert counted.delay_ms(0.99) == 99.02
    assert counted.delay_ms(1.0) == 100.02
    assert Tally().delay_ms(0.5) == 0.0


def test_tallies_add_up_across_processes() -> None:
    total = tally(1, 2)
    total.add(Tally.from_json(json.loads(json.dumps(tally(2, 3).as_json()))))
    assert (total.events, total.lost) == (4, 2)
    assert sorted(total.delays.values()) == [1, 1, 2]
