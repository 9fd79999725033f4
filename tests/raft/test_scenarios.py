"""Each text scenario still plays as it was reviewed."""

from pathlib import Path

import pytest

from tests.raft.scenario import DIRECTORY, play

SCENARIOS = sorted(DIRECTORY.glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_plays_as_reviewed(path: Path) -> None:
    """After a wanted change: `just scenarios-rewrite`, then read the difference."""
    assert play(path.read_text()) == path.read_text()
