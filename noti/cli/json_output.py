"""How a command is told to print for programs: --json, the same for every command that reads."""

from collections.abc import Callable
from typing import Any, Final

import click

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
"""For every command that shows what it has read."""

_WANTS_JSON: Final = "noti.cli.wants_json"


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `form`, text or json: by --format, as Serf's commands have it, or by --json."""
    function = click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        callback=_form,
        help="How it is printed.",
    )(function)
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note_json,
        help="The same as --format json.",
    )(function)


def _note_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.meta[_WANTS_JSON] = value


def _form(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return "json" if context.meta.get(_WANTS_JSON) else value
