"""Which nodes a command asks: those that it is told, one after the other until one answers."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import click

from noti.errors import MessageInvalid, Unavailable
from noti.redaction import redacted

URLS_VARIABLE: Final = "NOTI_URLS"
"""Where browsers and publishers connect, for commands that read or publish events."""

OPS_URLS_VARIABLE: Final = "NOTI_OPS_URLS"
"""Where operators ask, for commands that show how nodes are."""

COMMAND_VARIABLES: Final = frozenset({URLS_VARIABLE, OPS_URLS_VARIABLE})
"""Variables of commands; no settings of a node."""

T = TypeVar("T")
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def urls_option(default: str, *flags: str, variable: str = URLS_VARIABLE) -> Decorator:
    """Return the option `urls`: nodes of one cluster, in the order in which they are asked.

    `flags` are further names of it. Without it, the `variable` counts, with commas or blanks
    between the URLs, and without that, the `default`.
    """

    def urls_of(
        context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
    ) -> tuple[str, ...]:
        given = given_urls(context, parameter, values) or urls_in(variable)
        return given or ((default,) if default else ())

    return click.option(
        "--url",
        *flags,
        "urls",
        multiple=True,
        callback=urls_of,
        metavar="URL",
        help="A node; repeat for several of one cluster, of which the next is asked when one does "
        f"not answer. [default: {variable}{f', or {default}' if default else ''}]",
    )


def given_urls(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the URLs that are given; raises `BadParameter`, without showing it, for no URL."""
    if any(re.search(r"\s", url) for url in values):
        # Also, what we say ends a URL at a blank, and so would show the rest of a password.
        raise click.BadParameter("a URL has no blanks; write %20", context, parameter)
    return values


def urls_in(variable: str) -> tuple[str, ...]:
    """Return the URLs in an environment variable, between commas or blanks."""
    return tuple(re.findall(r"[^\s,]+", os.environ.get(variable, "")))


def first_answer(urls: Sequence[str], ask: Callable[[str], T]) -> T:
    """Return what `ask` returns for the first node that answers.

    That one does not is told on stderr, when another one is asked. Raises what `ask` raises of
    one, `Unavailable` when none of several answers.
    """
    *others, last = urls
    problems = []
    for url in others:
        try:
            return ask(url)
        except (Unavailable, MessageInvalid) as error:
            problems.append(str(error))
            click.echo(f"noti: {redacted(str(error))}; asking the next node", err=True)
    try:
        return ask(last)
    except (Unavailable, MessageInvalid) as error:
        if not problems:
            raise
        raise Unavailable(f"none of {len(urls)} nodes answers, the last: {error}") from None
