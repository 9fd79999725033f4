"""The simulator itself: fresh seeds pass, and a seed tells the same story everywhere."""

import os
import subprocess
import sys

import pytest

from tests.simulation.sim import LAYERS, main, options_of

FRESH = {"core": 20, "nodes": 8, "gossip": 0}

TOLD = [("core", 1), ("core", 2), ("nodes", 57), ("nodes", 64), ("gossip", 7)]
"""Layers and seeds whose stories are compared."""


@pytest.mark.parametrize("layer", LAYERS)
def test_fresh_seeds_keep_every_promise(layer: str) -> None:
    """Other ones in every run; a failure prints how to replay it."""
    first = int.from_bytes(os.urandom(4))
    for seed in range(first, first + FRESH[layer]):
        outcome = LAYERS[layer](seed)
        assert outcome.failure is None, outcome.report()


def test_seed_prints_the_same_story_in_any_process() -> None:
    stories = []
    for hash_seed in ("1", "2"):
        # One process for all stories: it takes longer to start than to tell one.
        command = [sys.executable, "-m", "tests.simulation.test_sim"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        stories.append(done.stdout.splitlines())
    assert stories[0] == stories[1]
    assert sum(line.startswith("trace ") for line in stories[0]) == len(TOLD)


def test_wrong_option_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="seeds=N"):
        options_of(["seeds=many"])
    with pytest.raises(SystemExit, match="layer=core"):
        options_of(["layer=moon"])


def test_batch_prints_how_many_seeds_passed_and_how_fast(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["layer=core", "seeds=2"]) == 0
    output = capsys.readouterr().out
    assert "2 seeds, no failure" in output
    assert "simulated hours per processor hour for an idle cluster of three" in output


if __name__ == "__main__":
    for layer, seed in TOLD:
        main([f"layer={layer}", f"seed={seed}"])
