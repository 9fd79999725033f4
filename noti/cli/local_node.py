"""What the commands share that ask the node of this machine, as `serf` asks its agent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from noti.certificates.describing import printable
from noti.cli.data_directory import data_directory
from noti.cli.deadline import TIMEOUT_S
from noti.membership.control_client import ControlClient

ANSWER_WITHIN_S = TIMEOUT_S
"""What needs no other node is answered at once."""


def local_node(context: click.Context, config_file: Path | None, data_dir: Any) -> ControlClient:
    """Connect to the node that the flags of a command name, or of the command that it is part of.

    Raises `ConfigInvalid` and what `ControlClient` raises.
    """
    outer = context.parent.params if context.parent is not None else {}
    config_file = config_file or outer.get("config_file")
    data_dir = data_dir or outer.get("data_dir")
    return ControlClient(data_directory(config_file, data_dir))


def key_value(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """Return repeated KEY=VALUE as a mapping; a callback of click options."""
    pairs = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not as_text(context, parameter, key) or not equals:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", context, parameter)
        pairs[key] = as_text(context, parameter, text)
    return pairs


def as_text(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return a name that can be sent to others; a callback of click arguments."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8", context, parameter) from None
    return value


def as_texts(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    """Return repeated names that can be sent to others; a callback of click options."""
    return tuple(as_text(context, parameter, value) for value in values)


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of equal length as lines whose columns begin below each other."""
    safe = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in safe
    ]
