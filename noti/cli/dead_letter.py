"""`noti dead-letter list` and `replay`: messages that could not become events, and a second chance.

A dead letter is removed only after JetStream has taken its message again; ended in between, it is
still there, and the next replay finds that the message is taken already, by its id.
"""

import base64
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import nats.errors
from nats.js.api import RawStreamMsg
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from noti.certificates.describing import printable
from noti.cli.asyncio_commands import run_until_signalled, within
from noti.cli.deadline import timeout_option
from noti.cli.jetstream import (
    CONNECTION_SETTINGS,
    DEFAULT_NATS_URL,
    FOREIGN_ERRORS,
    open_nats,
    problem,
)
from noti.cli.settings import load_config, settings_options
from noti.config import Config
from noti.errors import MessageInvalid, NotiError, SourceUnavailable
from noti.publishing.nats.client import NatsClient
from noti.publishing.nats.dead_letter import (
    SUBJECTS,
    RepeatedHeaders,
    StoredLetter,
    stored_letter,
)

ROWS_MAX: Final = 100
"""More than a screen or two is for programs."""

_stream = click.option("--stream", metavar="NAME", help="Only what came from this stream.")
_subjects = click.option(
    "--subject",
    "subjects",
    multiple=True,
    help=f"Where they are; repeat for several. [default: {SUBJECTS}, and what --config names]",
)


@click.group("dead-letter")
def dead_letter() -> None:
    """Look at messages that could not become events, and publish them again."""


@dead_letter.command("list")
@_stream
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"At most so many, the oldest. [default: {ROWS_MAX} in a table, all as JSON]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as in a pipe.")
@_subjects
@timeout_option
@settings_options(*CONNECTION_SETTINGS)
def list_command(
    config_file: Path | None,
    stream: str | None,
    limit: int | None,
    as_json: bool,
    subjects: tuple[str, ...],
    timeout_s: float,
    **options: Any,
) -> None:
    """Show dead letters: which message, and why it is no event. The oldest comes first."""
    config = load_config(config_file, options, nats_url=DEFAULT_NATS_URL)
    where = _Where(config, subjects, timeout_s)
    if as_json or not sys.stdout.isatty():
        run_until_signalled(_list(where, stream, limit, _Lines()))
    else:
        run_until_signalled(_list(where, stream, limit or ROWS_MAX, _Rows()))


@dead_letter.command("replay")
@click.argument("numbers", nargs=-1, type=click.IntRange(1, 2**64 - 1), metavar="[NUMBER]...")
@click.option("--all", "all_of_them", is_flag=True, help="All that are there now.")
@_stream
@click.option(
    "--new-id", is_flag=True, help="As another event than one that was shown with the same id."
)
@_subjects
@timeout_option
@settings_options(*CONNECTION_SETTINGS)
def replay_command(
    config_file: Path | None,
    numbers: tuple[int, ...],
    all_of_them: bool,
    stream: str | None,
    new_id: bool,
    subjects: tuple[str, ...],
    timeout_s: float,
    **options: Any,
) -> None:
    """Publish messages again, with their subjects and headers, and remove their dead letters.

    \b
    noti dead-letter list
    noti dead-letter replay 17 18
    noti dead-letter replay --stream orders

    NUMBER is that of the list. A message keeps its id (Nats-Msg-Id): with it, browsers are shown
    the event once, whatever is repeated. JetStream drops an id that it has seen within the
    duplicate window of the stream, two minutes if nothing else was set; such a dead letter is kept.
    Ended at any moment, this loses nothing, and may be run again.
    """
    if sum((bool(numbers), all_of_them, stream is not None)) != 1:
        raise click.UsageError("give numbers of dead letters, or --stream, or --all")
    config = load_config(config_file, options, nats_url=DEFAULT_NATS_URL)
    where = _Where(config, subjects, timeout_s)
    run_until_signalled(_replay(where, numbers, stream, new_id=new_id))


@dataclass(frozen=True, slots=True)
class _Where:
    """Where dead letters are."""

    config: Config
    given: tuple[str, ...]
    timeout_s: float

    def subjects(self) -> list[str]:
        """Return what is looked through."""
        if self.given:
            return sorted(set(self.given))
        ours = SUBJECTS.removesuffix(">")
        named = {one.dead_letter for one in self.config.streams if one.dead_letter is not None}
        return [SUBJECTS, *sorted(one for one in named if not one.startswith(ours))]


class _Letters:
    """Dead letters at NATS, over one connection."""

    def __init__(self, client: NatsClient, where: _Where) -> None:
        self._client = client
        self._where = where
        self._timeout_s = where.timeout_s
        self._jetstream = client.jetstream(timeout=where.timeout_s)

    async def places(self) -> list[tuple[str, str]]:
        """Return the streams that hold dead letters, and their subjects there."""
        found = []
        for subject in self._where.subjects():
            question = json.dumps({"subject": subject}).encode()
            asking = self._client.request("$JS.API.STREAM.NAMES", question, timeout=self._timeout_s)
            answer = json.loads((await within(self._timeout_s, asking)).data)
            if "error" in answer:
                raise APIError.from_error(answer["error"])
            found += [(name, subject) for name in answer["streams"] or ()]
        return found

    async def read(self, stream: str | None) -> AsyncGenerator[tuple[str, StoredLetter], None]:
        """Yield those that are there now, of one stream or all, with the stream they are kept in.

        Not those that come meanwhile: a message that is published again may be back at once.
        """
        for name, subject in await self.places():
            info = await within(self._timeout_s, self._jetstream.stream_info(name))
            place, last = 0, info.state.last_seq
            while place < last:
                asking = self._jetstream.get_msg(name, place + 1, subject=subject, next=True)
                try:
                    message = await within(self._timeout_s, asking)
                except NotFoundError:
                    break
                place = message.seq or last
                if place > last:
                    break
                try:
                    letter = _letter_in(message)
                except MessageInvalid:
                    continue  # whoever writes to that subject, too
                if stream in (None, letter.stream):
                    yield name, letter

    async def at(self, number: int) -> tuple[str, StoredLetter]:
        """Return one; raises `NotiError` if there is none."""
        names = sorted({name for name, _ in await self.places()})
        if len(names) > 1:
            raise NotiError(f"{', '.join(names)} hold dead letters: choose one with --subject")
        try:
            name = names[0]
            message = await within(self._timeout_s, self._jetstream.get_msg(name, number))
        except (IndexError, NotFoundError):
            raise NotiError(f"there is no dead letter {number}") from None
        try:
            return name, _letter_in(message)
        except MessageInvalid as error:
            raise NotiError(f"message {number} of {name} is no dead letter: it {error}") from None

    async def replay(self, name: str, letter: StoredLetter, *, new_id: bool) -> int:
        """Publish, wait until a stream has it, remove; return its number there.

        Raises `NotiError` when it cannot be published as it is; then it stays.
        """
        if letter.truncated_bytes is not None:
            raise NotiError(f"its payload of {letter.truncated_bytes} bytes was not kept")
        if letter.subject.startswith("$"):
            # Whoever may write dead letters would speak to NATS itself, with the operator's rights.
            raise NotiError(f"{letter.subject} belongs to NATS itself")
        headers = RepeatedHeaders(letter.headers_again(new_id=new_id))
        publishing = self._jetstream.publish(
            letter.subject, letter.payload, timeout=self._timeout_s, headers=headers
        )
        try:
            ack = await within(self._timeout_s, publishing)
        except NoStreamResponseError:
            raise NotiError(f"no stream takes {letter.subject}") from None
        except (nats.errors.BadSubjectError, nats.errors.BadHeaderError) as error:
            raise NotiError(f"NATS takes no such message: {error}") from None
        except nats.errors.MaxPayloadError:
            raise NotiError("it is larger than NATS takes") from None
        if ack.duplicate and ack.stream == letter.stream and ack.seq <= letter.sequence:
            info = await within(self._timeout_s, self._jetstream.stream_info(ack.stream))
            raise NotiError(
                f"{ack.stream} still knows its id from its first publication, and drops it: try"
                f" again {info.config.duplicate_window or 0:g} s after that, or with --new-id"
            )
        await within(self._timeout_s, self._jetstream.delete_msg(name, letter.place))
        return ack.seq


class _Lines:
    """JSON for programs, as it comes."""

    def show(self, name: str, letter: StoredLetter) -> None:
        row = {"number": letter.place, **_row(letter), "kept_in": name}
        click.echo(json.dumps(row, ensure_ascii=False))

    def end(self, *, complete: bool) -> None:
        pass


class _Rows:
    """A table for people; what came over the network cannot steer their terminal."""

    def __init__(self) -> None:
        self._table = Table(box=None, padding=(0, 3, 0, 0))
        for column in ("number", "stream", "sequence", "subject", "time", "size", "reason"):
            self._table.add_column(column)

    def show(self, name: str, letter: StoredLetter) -> None:
        row = [letter.place, *_row(letter).values()]
        self._table.add_row(*(escape(printable(str(cell))) for cell in row))

    def end(self, *, complete: bool) -> None:
        console = Console(highlight=False)
        if self._table.row_count == 0:
            console.print("no dead letters")
            return
        console.print(self._table)
        if not complete:
            console.print("there are more: --limit")


def _row(letter: StoredLetter) -> dict[str, object]:
    return {
        "stream": letter.stream,
        "sequence": letter.sequence,
        "subject": letter.subject,
        "time": letter.time,
        "size": letter.size_bytes,
        "reason": letter.reason,
    }


def _letter_in(message: RawStreamMsg) -> StoredLetter:
    headers = base64.b64decode(message.hdrs or b"")
    return stored_letter(message.seq or 0, headers, message.data or b"")


@asynccontextmanager
async def _open(where: _Where) -> AsyncIterator[_Letters]:
    """Connect; whatever is wrong with NATS is `SourceUnavailable`."""
    try:
        async with open_nats(where.config, where.timeout_s) as client:
            yield _Letters(client, where)
    except FOREIGN_ERRORS as error:
        raise SourceUnavailable(problem(where.config, error, where.timeout_s)) from None


async def _list(
    where: _Where, stream: str | None, limit: int | None, shown: _Lines | _Rows
) -> None:
    count = 0
    complete = True
    async with _open(where) as letters, aclosing(letters.read(stream)) as found:
        async for name, letter in found:
            complete = count != limit
            if not complete:
                break
            shown.show(name, letter)
            count += 1
    shown.end(complete=complete)


async def _replay(
    where: _Where, numbers: Sequence[int], stream: str | None, *, new_id: bool
) -> None:
    count = kept = 0
    async with _open(where) as letters, aclosing(_chosen(letters, numbers, stream)) as chosen:
        async for name, letter in chosen:
            count += 1
            try:
                number = await letters.replay(name, letter, new_id=new_id)
            except NotiError as error:
                kept += 1
                click.echo(f"kept {letter.place}: {printable(str(error))}")
            else:
                at = printable(letter.subject)
                click.echo(f"replayed {letter.place} to {at}: the stream has it as number {number}")
    if kept:
        raise NotiError(f"{kept} of {count} dead letters could not be replayed, and were kept")


async def _chosen(
    letters: _Letters, numbers: Sequence[int], stream: str | None
) -> AsyncGenerator[tuple[str, StoredLetter], None]:
    for number in numbers:
        yield await letters.at(number)
    if not numbers:
        async with aclosing(letters.read(stream)) as found:
            async for one in found:
                yield one
