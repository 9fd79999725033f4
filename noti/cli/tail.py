"""`noti tail`: shows an event stream in a terminal, or as JSON lines in a pipe.

News about the connection goes to stderr. No event is shown twice, and no control character of an
event reaches a terminal.
"""

import json
import math
import os
import random
import stat
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import click
import trio
from rich.console import Console
from rich.text import Text

from noti.address import HUB_PATH
from noti.cli.deadline import no_answer, timeout_option
from noti.cli.http import tls_ca_option, tls_context, token_file_option, token_in
from noti.cli.nodes import given_urls, urls_option
from noti.cli.signals import until_signalled
from noti.client.event_source import HEAD_S_MAX, SILENCE_S_MAX, read_stream
from noti.client.event_stream import StreamEvent
from noti.client.reconnection import Reconnect, Reconnection
from noti.errors import LocalError, Unavailable
from noti.redaction import redacted

STOP_DEADLINE_S = 3.0
STDOUT = 1
"""Descriptor of standard output."""

_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_VISIBLE.pop(ord("\t"))
"""Control characters as text: a stream must not be able to steer a terminal."""


@click.command()
@click.argument("named", nargs=-1, metavar="[URL]...", callback=given_urls)
@urls_option("http://127.0.0.1:8402")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    help="With the address of a node: what to follow; repeat for several. [default: *]",
)
@click.option(
    "--from",
    "last_event_id",
    default="",
    metavar="ID",
    help="Begin after this event, or at the earliest that there is. [default: from now on]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--until", metavar="TEXT", help="Stop after an event with this in its data.")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with every request."
)
@click.option(
    "--silence",
    "silence_s",
    type=click.FloatRange(0.1),
    default=SILENCE_S_MAX,
    show_default=True,
    metavar="SECONDS",
    help="Reconnect after so long without a byte.",
)
@token_file_option
@timeout_option
@tls_ca_option
def tail(
    named: tuple[str, ...],
    urls: Sequence[str],
    topics: tuple[str, ...],
    last_event_id: str,
    as_json: bool,
    count: int | None,
    until: str | None,
    headers: tuple[str, ...],
    silence_s: float,
    token_file: Path | None,
    timeout_s: float,
    tls_ca: Path | None,
) -> None:
    """Follow the event stream at URL, any server's, and resume it when it breaks.

    Of several URLs, nodes of one cluster, the next is tried when one does not answer.

    With ws:// or wss://, over WebSocket, as noti's nodes offer it.

    It must begin within the --timeout of each; after that, it is tried again and again. It ends
    when nobody reads its output any more.

    The address of a node is enough: noti tail http://127.0.0.1:8402 --topic jobs.noti.books
    """
    if not last_event_id.isprintable() or not last_event_id.isascii():
        raise LocalError("--from is an id: printable ASCII, or earliest")
    streams = [stream_url(url, topics) for url in named or urls]
    reconnection = Reconnection(streams, random.Random(), last_event_id.strip())
    screen = Screen(as_json, count, until)
    shown = [_header(header) for header in headers]
    if (token := token_in(token_file)) is not None:
        shown.append(("Authorization", f"Bearer {token}"))
    reading = partial(
        read_stream,
        reconnection,
        screen,
        tls=tls_context(tls_ca),
        headers=shown,
        silence_s_max=silence_s,
        head_s_max=min(timeout_s, HEAD_S_MAX),
    )
    show = partial(_begin_within, len(streams) * timeout_s, reconnection.url, screen, reading)
    trio.run(partial(until_signalled, show, STOP_DEADLINE_S))


async def _begin_within(
    timeout_s: float, url: str, screen: "Screen", reading: Callable[[], Awaitable[None]]
) -> None:
    """Follow; raises `Unavailable` when the stream has not begun in time."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_when_unread, nursery.cancel_scope)
        with trio.move_on_after(timeout_s) as screen.beginning:
            await reading()
        nursery.cancel_scope.cancel()
    if screen.beginning.cancelled_caught:
        why = f" ({screen.problem})" if screen.problem else ""
        raise Unavailable(f"{no_answer(url, timeout_s)}{why}")


async def _end_when_unread(scope: trio.CancelScope) -> None:
    """Cancel when the pipe that we write to has no reader any more, though no event comes."""
    if stat.S_ISFIFO(os.fstat(STDOUT).st_mode):
        # Nothing can be read at this end: the system wakes us for the error alone.
        await trio.lowlevel.wait_readable(STDOUT)
        scope.cancel()


def stream_url(url: str, topics: tuple[str, ...]) -> str:
    """Return the URL of a stream; the address of a node is completed. Raises `LocalError`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise LocalError(f"{url!r} is not a URL; write http://HOST:PORT/PATH") from None
    if (
        parts.scheme in ("http", "https", "ws", "wss")
        and parts.path in ("", "/")
        and not parts.query
    ):
        query = urlencode([*(("topic", topic) for topic in topics or ("*",)), ("cursor", "1")])
        return parts._replace(path=HUB_PATH, query=query).geturl()
    if topics:
        raise LocalError(f"--topic goes with the address of a node, as http://host:8402; not {url}")
    return url


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not text.isprintable() or not text.isascii():
        raise LocalError(f"--header takes 'Name: value', not {text.partition(':')[0]!r}")
    return name.strip(), value.strip()


class Screen:
    """Where events and news are shown."""

    def __init__(self, as_json: bool, count: int | None, until: str | None) -> None:
        self._as_json = as_json
        self._left = count
        self._until = until
        self.beginning = trio.CancelScope()
        """Ends the command, as long as no stream has begun."""
        self.problem = ""
        """Why there is none, the last time."""
        self._out = Console(highlight=False, soft_wrap=True)
        self._news = Console(stderr=True, highlight=False, soft_wrap=True)

    def opened(self, url: str, resumed_from: str | None) -> None:
        """Say that the stream is there."""
        self.beginning.deadline = math.inf
        resumed = f", resumed from {_visible(resumed_from)}" if resumed_from else ""
        self._news.print(Text(f"connected to {redacted(url)}{resumed}", style="green"))

    def waiting(self, pause: Reconnect) -> None:
        """Say that it is not."""
        self.problem = _visible(pause.why)
        line = f"{redacted(_visible(pause.why))}; again in {pause.after_s:.1f} s"
        self._news.print(Text(line, style="yellow"))

    def event(self, event: StreamEvent) -> bool:
        """Show an event; False when there are enough, or no process reads them any more."""
        try:
            if self._as_json:
                self._print_json(event)
            else:
                self._print(event)
        except BrokenPipeError:
            # Python would flush once more at exit, and fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return False
        if self._left is not None:
            self._left -= 1
        return self._left != 0 and not (self._until and self._until in event.data)

    def _print_json(self, event: StreamEvent) -> None:
        document = {"id": event.last_event_id, "type": event.type, "data": event.data}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def _print(self, event: StreamEvent) -> None:
        line = Text(datetime.now().strftime("%H:%M:%S.%f")[:-3], style="dim")
        line.append(f" {_visible(event.last_event_id)} ", style="dim")
        if event.type != "message":
            line.append(f"{_visible(event.type)} ", style="bold yellow")
        first, *others = event.data.split("\n")
        line.append(_visible(first), style="default")
        for other in others:
            line.append(f"\n    {_visible(other)}", style="default")
        with self._out.capture() as drawn:  # written by us: rich ends the process at a closed pipe
            self._out.print(line)
        sys.stdout.write(drawn.get())
        sys.stdout.flush()


def _visible(text: str) -> str:
    return text.translate(_VISIBLE)
