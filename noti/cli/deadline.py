"""How long a command waits for an answer: one flag, the same for every command that waits."""

from typing import Final

import click

TIMEOUT_S: Final = 10.0
"""A person has given up by then; a node that lives answers within this, also while it elects."""

TIMEOUT_S_MAX: Final = 3600.0

timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, TIMEOUT_S_MAX),
    default=TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long each answer may take.",
)


def no_answer(whom: str, timeout_s: float) -> str:
    """Return the error for a server that did not answer in time."""
    return f"no answer from {whom} within {timeout_s:g} s; does it run, and is that its port?"
