"""What became of one seed.

Whatever the run raises is a failure, and is described for a person.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.timeline import Timeline


@dataclass
class Outcome:
    """One seed's result."""

    layer: str
    seed: int
    failure: str | None = None
    """None when all went well."""
    virtual_s: float = 0.0
    trace_hash: str = ""
    lines: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)

    @property
    def command(self) -> str:
        """What replays it."""
        return f"just sim seed={self.seed} layer={self.layer}"

    def report(self, lines_max: int = 40) -> str:
        """Return the failure, the last lines before it, and how to see it again."""
        tail = "\n".join(self.lines[-lines_max:])
        return f"{tail}\n\n{self.failure}\nreplay: {self.command}"


def outcome_of(layer: str, seed: int, timeline: Timeline, run: Callable[[], None]) -> Outcome:
    """Run to the end or to the first failure."""
    failure: str | None = None
    try:
        run()
    except Exception as error:  # noqa: BLE001 - whatever a seed finds is its result
        failure = "\n".join(map(_described, _leaves(error)))
    return Outcome(layer, seed, failure, lines=timeline.lines, reached=timeline.reached)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = "\n".join(f"  at {f.filename}:{f.lineno} in {f.name}" for f in frames)
    return f"FAILED: {type(error).__name__}: {error}\n{where}"
