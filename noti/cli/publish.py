"""`noti publish` and `noti mock-publisher`: put category events into the JetStream stream.

Enters: NATS settings, what to publish. Leaves: acknowledged messages, numbered without a gap.
Never: a message counted before JetStream acknowledged it.

These commands are NATS clients and nothing else, so they run on asyncio directly, without Trio.
"""

import asyncio
import itertools
import signal
import ssl
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError
from rich.console import Console
from rich.status import Status

from noti.certificates.refusals import handshake_refusal
from noti.certificates.uses import for_nats
from noti.cli.settings import load_given, settings_options
from noti.config import Config
from noti.errors import SourceUnavailable
from noti.ingest.client import NatsClient
from noti.ingest.login import NatsLogin
from noti.rpc.generated.category.v1 import CategoryMessage

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"
CONNECT_TIMEOUT_S = 2
CLOSE_TIMEOUT_S = 1
RETRY_S = (0.25, 0.5, 1, 2, 5)
"""Waits between attempts to reach NATS; the last one repeats."""
REPORT_INTERVAL_S = 10
"""How often progress is told where there is no terminal to draw on."""

CATEGORIES = ("books", "films", "games", "music", "news", "sport", "travel")

stream_settings = settings_options(
    "nats_url",
    "nats_tls_ca",
    "nats_tls_cert",
    "nats_tls_key",
    "nats_creds_file",
    "nats_nkey_file",
    "nats_token_file",
    "nats_user",
    "nats_password_file",
    "nats_stream",
    "nats_subject",
    "nats_retention",
    "nats_storage",
    "nats_replicas",
    "nats_max_age_s",
    "nats_max_bytes",
)


@click.command()
@stream_settings
@click.option(
    "--user-id", type=click.IntRange(0, 2**32 - 1), required=True, help="Whom it is about."
)
@click.option("--from", "category_from", required=True, help="The user's category.")
@click.option("--to", "category_to", required=True, help="The category that it was matched with.")
def publish(
    config_file: Path | None, user_id: int, category_from: str, category_to: str, **options: Any
) -> None:
    """Publish one event to NATS and wait until JetStream has it."""
    config = load_given(config_file, options)

    async def once() -> None:
        async with _jetstream(config) as jetstream:
            message = _message(user_id, category_from, category_to)
            subject = _subject(config, category_from)
            ack = await jetstream.publish(
                subject, bytes(message), stream=config.nats_stream, timeout=CONNECT_TIMEOUT_S
            )
            click.echo(f"published to {subject}: {ack.stream} has it as number {ack.seq}")

    try:
        _run(once())
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise SourceUnavailable(_problem(config, error)) from None


@click.command()
@stream_settings
@click.option("--rate", type=click.FloatRange(0.01, 10_000), default=2.0, help="Events a second.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many. [default: never]")
@click.option("--start", type=click.IntRange(1, 2**32 - 1), default=1, help="The first user_id.")
def mock_publisher(
    config_file: Path | None, rate: float, count: int | None, start: int, **options: Any
) -> None:
    """Publish numbered events to NATS, one after the other, until Ctrl-C.

    The user_id of an event is its number, so a gap or a duplicate is easy to see. Waits for NATS.
    """
    config = load_given(config_file, options)
    numbers = iter(range(start, start + count)) if count else itertools.count(start)
    _run(_publish_numbers(config, numbers, rate, _Report(config)))


class _Report:
    """One line that a person can follow: redrawn in a terminal, repeated now and then elsewhere."""

    def __init__(self, config: Config) -> None:
        self.published = 0
        self._stream = f"{config.nats_stream} at {_shown_url(config)}"
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._told = ""
        self._told_at = 0.0

    def __enter__(self) -> "_Report":
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
        self._console.print(f"published {self.published} events to {self._stream}")

    def waiting(self, problem: str) -> None:
        self._tell("waiting", f"{problem}; trying again")

    def progress(self, number: int) -> None:
        self.published += 1
        self._tell("publishing", f"published {number} to {self._stream}")

    def _tell(self, kind: str, line: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._status is not None:
            self._status.update(line)
        elif kind != self._told or now - self._told_at >= REPORT_INTERVAL_S:
            self._console.print(line)
            self._told, self._told_at = kind, now


async def _publish_numbers(
    config: Config, numbers: Iterator[int], rate: float, report: _Report
) -> None:
    """Publish every number once, in order, whatever happens to NATS meanwhile."""
    run_id = uuid.uuid4().hex[:12]
    failures = 0
    pending = next(numbers, None)
    with report:
        while pending is not None:
            try:
                async with _jetstream(config) as jetstream:
                    due = asyncio.get_running_loop().time()
                    while pending is not None:
                        await _publish_number(jetstream, config, run_id, pending)
                        report.progress(pending)
                        failures, pending = 0, next(numbers, None)
                        due = max(due + 1 / rate, asyncio.get_running_loop().time() - 1)
                        await asyncio.sleep(due - asyncio.get_running_loop().time())
            except (OSError, TimeoutError, nats.errors.Error) as error:
                report.waiting(_problem(config, error))
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1


async def _publish_number(
    jetstream: JetStreamContext, config: Config, run_id: str, number: int
) -> None:
    category_from = CATEGORIES[number % len(CATEGORIES)]
    category_to = CATEGORIES[number * 3 % len(CATEGORIES)]
    await jetstream.publish(
        _subject(config, category_from),
        bytes(_message(number, category_from, category_to)),
        stream=config.nats_stream,
        timeout=CONNECT_TIMEOUT_S,
        # When an ack was lost we publish again; JetStream drops the second by this id.
        headers={"Nats-Msg-Id": f"{run_id}-{number}"},
    )


@asynccontextmanager
async def _jetstream(config: Config) -> AsyncIterator[JetStreamContext]:
    """Connect once, without silent retries, and make the stream when it is missing."""
    reasons: list[str] = []

    async def note(error: Exception) -> None:
        # nats-py tells here why a server was given up, and raises only that none is left.
        reasons.append(str(error))

    proofs = _proofs(config)
    client = NatsClient()
    try:
        try:
            await client.connect(
                (config.nats_url or DEFAULT_NATS_URL).split(","),
                name="noti publisher",
                error_cb=note,
                connect_timeout=CONNECT_TIMEOUT_S,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # even now it would try a server 60 times, 2 s apart
                reconnect_time_wait=0,
                **proofs,
            )
        except nats.errors.NoServersError:
            raise ConnectionError(reasons[-1] if reasons else "no answer") from None
        yield await _ensure_stream(client, config)
    finally:
        await _close(client)


async def _close(client: NatsClient) -> None:
    """Close what there is to close; after a failed handshake nats-py would wait for ever."""
    with suppress(TimeoutError, OSError):
        await asyncio.wait_for(client.close(), CLOSE_TIMEOUT_S)


async def _ensure_stream(client: NatsClient, config: Config) -> JetStreamContext:
    """Return JetStream with the stream in it."""
    jetstream = client.jetstream(timeout=CONNECT_TIMEOUT_S)
    try:
        await jetstream.stream_info(config.nats_stream)
    except NotFoundError:
        await jetstream.add_stream(
            StreamConfig(
                name=config.nats_stream,
                subjects=[config.nats_subject],
                retention=RetentionPolicy(config.nats_retention),
                storage=StorageType(config.nats_storage),
                num_replicas=config.nats_replicas,
                max_age=config.nats_max_age_s,
                max_bytes=config.nats_max_bytes or -1,
            )
        )
    return jetstream


def _proofs(config: Config) -> dict[str, Any]:
    """Return how to log in and encrypt; raises `ConfigInvalid` for a bad file."""
    options = NatsLogin.of(config).options()
    ca, certificate, key = config.nats_tls_ca, config.nats_tls_cert, config.nats_tls_key
    if ca is not None or certificate is not None:
        options["tls"] = for_nats(ca, certificate, key).current
    return options


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or until SIGINT or SIGTERM cancels it, which is a clean end too."""

    async def until_signalled() -> None:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    # trio-asyncio, where it was imported, would put another loop in the place of the default one.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(until_signalled())


def _message(user_id: int, category_from: str, category_to: str) -> CategoryMessage:
    return CategoryMessage(
        user_id=user_id,
        category_from=category_from,
        category_to=category_to,
        created_at=datetime.now(UTC),
    )


def _subject(config: Config, category: str) -> str:
    """Return the subject below `jobs.noti.>`; only token characters survive from the category."""
    token = "".join(char if char.isalnum() or char in "-_" else "-" for char in category) or "-"
    return config.nats_subject.replace(">", token).replace("*", token)


def _shown_url(config: Config) -> object:
    return config.masked()["nats_url"] or DEFAULT_NATS_URL


def _problem(config: Config, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ssl.SSLError):
        reason = f"it {handshake_refusal(error)}"
    return f"NATS at {_shown_url(config)} cannot be used: {reason}"
