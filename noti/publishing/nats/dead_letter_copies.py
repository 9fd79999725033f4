"""Copies what can never be an event to the dead-letter subject, each once; asyncio."""

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import nats.js.errors
import structlog
from nats.js import api
from prometheus_client import Counter

from noti.errors import SourceUnavailable, leaves_of
from noti.publishing.nats import dead_letter
from noti.publishing.nats.connection import REQUEST_S, NatsConnection
from noti.publishing.nats.dead_letter import HeaderLines, RepeatedHeaders
from noti.publishing.nats.ports import DeadLetter
from noti.publishing.nats.pull import header_lines_of
from noti.publishing.nats.settings import NatsSettings
from noti.stream_settings import subject_covers
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.publishing")

COPIES: Final = Counter(
    "noti_source_dead_letters_total",
    "Messages that can never be events, by what became of their copies on the dead-letter subject.",
    ["stream", "outcome"],
)
OUTCOMES: Final = ("copied", "truncated", "refused")
"""`truncated`: without the payload or the headers, which are too large. `refused`: the server takes
no copy; the message is gone."""

MAX_AGE_S: Final = 30 * 24 * 3600.0
"""How long the stream that is made here keeps a letter; longer than anybody's holidays."""

MAX_BYTES: Final = 1024**3
"""Size of that stream; the oldest letters go."""

AT_ONCE: Final = 64
"""Copies on their way together: a fetch full of them is no reason to wait for each in turn."""

REASON_CHARS_MAX: Final = 512
"""A reason is a line of a header."""

HEADERS_BYTES_MAX: Final = 64_000
"""JetStream stores 64 KiB of them; ours come on top of those of the message."""

FRAME_BYTES: Final = 64
"""What NATS itself puts around headers, at most."""

_NAME_IN_USE: Final = 10058
"""Error code of the server: there is a stream of this name, made otherwise."""

_PASSING: Final = (10008,)
"""Error codes of the server that pass: the cluster is choosing a leader."""

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""What nats-py sends as the name of a header; the server takes any."""

_throttled = ThrottledLog(time.monotonic)


class DeadLetterCopies:
    """The way to the dead-letter subject over one connection."""

    def __init__(self, connection: NatsConnection, settings: NatsSettings, identity: str) -> None:
        self._connection = connection
        self._settings = settings
        self._identity = identity
        self._making = asyncio.Lock()
        self._forbidden: str | None = None
        """What the server does not permit: it says so in place of an answer, after a wait."""

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Return when each letter is copied, or will never be.

        Raises `SourceUnavailable` when that is not known: the copies are to be made again then, and
        those that were made already are not doubled.
        """
        waiting = iter(letters)
        while some := list(islice(waiting, AT_ONCE)):
            self._connection.forget_refusal()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._add_one(letter)) for letter in some]
            except BaseExceptionGroup as failures:
                raise leaves_of(failures)[0] from None
            for task in tasks:
                task.result()  # The group does not tell of one that was cancelled from inside.

    async def _add_one(self, letter: DeadLetter) -> None:
        if letter.message.subject == self._settings.dead_letter:
            return  # A copy, by way of a mirror, which keeps it; copies of copies would not end.
        outcome, headers, payload = self._copy_of(letter)
        refusal = self._forbidden or await self._refusal_of(headers, payload)
        if refusal is not None:
            outcome = "refused"
            _throttled.log(
                log.error,
                "a dead letter is lost: the server takes no copy",
                self._settings.stream,
                stream=self._settings.stream,
                seq=letter.message.seq,
                subject=self._settings.dead_letter,
                error=refusal,
            )
        COPIES.labels(self._settings.stream, outcome).inc()

    def _copy_of(self, letter: DeadLetter) -> tuple[str, RepeatedHeaders, bytes]:
        """Return what becomes of it, and its headers and payload, within what the server takes."""
        message, settings = letter.message, self._settings
        ours = [
            (dead_letter.HEADER_REASON, letter.reason[:REASON_CHARS_MAX]),
            (dead_letter.HEADER_STREAM, settings.stream),
            (dead_letter.HEADER_SEQUENCE, str(message.seq)),
            (dead_letter.HEADER_SUBJECT, message.subject),
            (dead_letter.HEADER_TIME, _rfc3339(message.published_ms)),
            (dead_letter.HEADER_MESSAGE_ID, f"{self._identity}:{message.seq}"),
        ]
        theirs = []
        for name, value in header_lines_of(message):
            text = value.encode(errors="surrogateescape").decode(errors="replace")
            if name.lower() == dead_letter.HEADER_MESSAGE_ID.lower():
                ours.append((dead_letter.HEADER_ID, text))
            elif _NAME.fullmatch(name) and not dead_letter.belongs_to_one_publication(name):
                theirs.append((name, text))
        outcome, payload = "copied", message.payload
        if _size_of(ours + theirs) > HEADERS_BYTES_MAX:
            outcome, theirs = "truncated", []
        room = self._connection.client.max_payload - FRAME_BYTES
        if _size_of(ours + theirs) + len(payload) > room:
            ours.append((dead_letter.HEADER_TRUNCATED, str(len(payload))))
            outcome, payload = "truncated", b""
        return outcome, RepeatedHeaders(ours + theirs), payload

    async def _refusal_of(self, headers: RepeatedHeaders, payload: bytes) -> str | None:
        """Publish the copy; return None, or why the server will not take it."""
        subject = self._settings.dead_letter
        for makes_stream in (True, False):
            try:
                await self._connection.jetstream.publish(subject, payload, headers=headers)
                return None
            except nats.js.errors.NoStreamResponseError:
                if makes_stream:
                    refusal = await self._make_stream()
                    if refusal is not None:
                        return refusal
            except nats.js.errors.APIError as error:
                if error.err_code in _PASSING:
                    raise SourceUnavailable(f"NATS: {error.description}") from error
                return error.description or str(error)
            except TimeoutError as error:
                self._forbidden = self._connection.refusal
                if self._forbidden is None:
                    raise SourceUnavailable(f"NATS took no copy within {REQUEST_S} s") from error
                return self._forbidden
        raise SourceUnavailable(f"the stream that takes {subject} does not answer")

    async def _make_stream(self) -> str | None:
        """See to it that a stream takes the subject; return None, or why there can be none."""
        jetstream, subject = self._connection.jetstream, self._settings.dead_letter
        async with self._making:
            try:
                await jetstream.find_stream_name_by_subject(subject)
                return None  # Others of these copies were faster, or it has no leader now.
            except nats.js.errors.NotFoundError:
                pass
            ours = subject_covers(dead_letter.SUBJECTS, subject)
            config = api.StreamConfig(
                name=dead_letter.STREAM_NAME,
                subjects=[dead_letter.SUBJECTS if ours else subject],
                retention=api.RetentionPolicy.LIMITS,
                storage=api.StorageType.FILE,
                max_age=MAX_AGE_S,
                max_bytes=MAX_BYTES,
                discard=api.DiscardPolicy.OLD,
                num_replicas=self._settings.replicas,
            )
            try:
                await self._make_or_widen(config)
            except nats.js.errors.APIError as error:
                if error.err_code in _PASSING:
                    raise SourceUnavailable(f"NATS: {error.description}") from error
                return f"stream {config.name} cannot be made: {error.description}"
            log.info("made the stream of dead letters", stream=config.name, subject=subject)
        return None

    async def _make_or_widen(self, config: api.StreamConfig) -> None:
        # Whoever reads another stream may do the same at the same moment, and be faster.
        jetstream, subjects = self._connection.jetstream, config.subjects or []
        try:
            there = (await jetstream.stream_info(dead_letter.STREAM_NAME)).config
        except nats.js.errors.NotFoundError:
            try:
                await jetstream.add_stream(config)
                return
            except nats.js.errors.APIError as error:
                if error.err_code != _NAME_IN_USE:
                    raise
            there = (await jetstream.stream_info(dead_letter.STREAM_NAME)).config
        # It was made for the dead letters of another stream, perhaps on a subject of their own.
        taken = there.subjects or []
        if missing := [subject for subject in subjects if subject not in taken]:
            await jetstream.update_stream(there, subjects=[*taken, *missing])


def _size_of(lines: HeaderLines) -> int:
    """Return how many bytes these headers take on the wire."""
    return sum(len(name) + len(value.encode("utf-8", "replace")) + 4 for name, value in lines)


def _rfc3339(published_ms: int) -> str:
    return datetime.fromtimestamp(published_ms / 1000, UTC).isoformat(timespec="milliseconds")
