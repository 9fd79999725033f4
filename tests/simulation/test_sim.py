"""The simulator itself: fixed seeds pass, a seed never changes its story, rare states occur."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.core_layer import run_core
from tests.simulation.sim import main, options_of

FIXED = range(60)


def test_fixed_seeds_keep_every_promise_and_reach_the_rare_states() -> None:
    reached: Counter[str] = Counter()
    for seed in FIXED:
        outcome = run_core(seed)
        assert outcome.failure is None, outcome.report()
        reached.update(outcome.reached.keys())
    assert len(reached) >= 5, reached


def test_fresh_seeds_keep_every_promise() -> None:
    """Other ones in every run; a failure prints how to replay it."""
    first = int.from_bytes(os.urandom(4))
    for seed in range(first, first + 20):
        outcome = run_core(seed)
        assert outcome.failure is None, outcome.report()


@pytest.mark.parametrize("seed", [1, 2])
def test_seed_tells_the_same_story_in_any_process(seed: int) -> None:
    told = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation.sim", f"seed={seed}"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        told.add(done.stdout)
    assert len(told) == 1
    assert "trace " in told.pop()


def test_wrong_option_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="seeds=N"):
        options_of(["seeds=many"])
    with pytest.raises(SystemExit, match="layer=core"):
        options_of(["layer=moon"])


def test_batch_of_whole_nodes_says_how_many_seeds_passed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["layer=nodes", "seeds=2"]) == 0
    assert "2 seeds, no failure" in capsys.readouterr().out
