"""`just fuzz`: the decoders against wrong bytes for as long as you like; members: `gossip_members`.

Enters: `minutes=5`, `target=NAME` (a part of the name). Leaves: a table of how many inputs each
decoder had; at the first failure the smallest input that shows it, and exit status 1.
Never: the same inputs twice: each round draws a new seed.
"""

import itertools
import os
import sys
import time
from collections import Counter

from hypothesis import HealthCheck, given, seed, settings
from rich.console import Console
from rich.table import Table

from tests.fuzz import gossip_members
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

ROUND = 100
"""Inputs of one target before it is the next one's turn."""


def options_of(arguments: list[str]) -> tuple[float, str]:
    """Return minutes and target; exits with one line when something is wrong."""
    minutes, name = 1.0, ""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "minutes" and value.replace(".", "", 1).isdigit():
            minutes = float(value)
        elif key == "target" and any(value in target.name for target in TARGETS):
            name = value
        else:
            names = ", ".join(target.name for target in TARGETS)
            sys.exit(f"just fuzz: {argument!r} is neither minutes=N nor target=NAME of: {names}")
    return minutes, name


def run_round(target: Target, number: int) -> int:
    """Feed some hundred inputs; return how many. Raises what a decoder let out."""
    count = 0

    @seed(number)
    @settings(
        max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutated(target.examples))
    def fuzz(data: bytes) -> None:
        nonlocal count
        count += 1
        target.try_bytes(data)

    fuzz()
    return count


def main(arguments: list[str]) -> int:
    """Run for the given time; return the exit status."""
    if arguments[:1] == ["gossip"]:
        return gossip_members.main(arguments[1:])
    minutes, name = options_of(arguments)
    console = Console()
    targets = [target for target in TARGETS if name in target.name]
    counts: Counter[str] = Counter()
    number = int.from_bytes(os.urandom(4))
    end = time.monotonic() + 60 * minutes
    with console.status("fuzzing") as status:
        for target in itertools.cycle(targets):
            if time.monotonic() > end:
                break
            number += 1
            status.update(f"{sum(counts.values())} inputs; {target.name}")
            try:
                counts[target.name] += run_round(target, number)
            except Exception as error:  # noqa: BLE001 - whatever comes out is the result
                console.print(f"{target.name}: {type(error).__name__}: {error}", markup=False)
                console.print("\n".join(getattr(error, "__notes__", [])), markup=False)
                return 1
    table = Table("decoder", "inputs")
    for target in targets:
        table.add_row(target.name, str(counts[target.name]))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
