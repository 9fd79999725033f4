"""How long a command waits for an answer: one flag, the same for every command that waits."""

import math
from typing import Any, Final

import click

TIMEOUT_S: Final = 10.0
"""A person has given up by then; a node that lives answers within this, also while it elects."""

TIMEOUT_S_MAX: Final = 3600.0


class _Seconds(click.FloatRange):
    """A range that `nan` is not in, which is neither less nor more than its ends."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=_Seconds(0.1, TIMEOUT_S_MAX),
    default=TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long each answer may take.",
)


def no_answer(whom: str, timeout_s: float) -> str:
    """Return the error for a server that did not answer in time."""
    return f"no answer from {whom} within {timeout_s:g} s; does it run, and is that its port?"
