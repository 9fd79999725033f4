"""Each text scenario still plays as it was reviewed."""

import re
from pathlib import Path

import pytest

from tests.raft.core.scenario import DIRECTORY, play

SCENARIOS = sorted(DIRECTORY.glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_plays_as_reviewed(path: Path) -> None:
    """After a wanted change: `just scenarios-rewrite`, then read the difference."""
    assert play(path.read_text()) == path.read_text()


def test_table_of_scenarios_names_each_file_and_each_of_the_28_stories() -> None:
    text = (DIRECTORY / "README.md").read_text()
    rows = re.findall(r"^\| (\w+|\(none\)) \| (\w+) \|", text, re.MULTILINE)
    assert {here for _, here in rows} == {path.stem for path in SCENARIOS}
    theirs = [name for name, _ in rows if name != "(none)"]
    assert len(theirs) == len(set(theirs)) == 28
