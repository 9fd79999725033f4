"""Connects commands to JetStream, makes events for it, and words its errors in one line.

These commands are NATS clients and nothing else, so they run on asyncio directly, without Trio.
They retry as they please; nothing is retried here.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from noti.certificates.uses import for_nats
from noti.cli.asyncio_commands import within
from noti.cli.deadline import no_answer
from noti.config import Config
from noti.connection_errors import CLOSED, reason_of
from noti.errors import ConfigInvalid
from noti.publishing.nats.client import NatsClient
from noti.publishing.nats.login import NatsLogin
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.stream_settings import ALL_SUBJECTS

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"
CLOSE_TIMEOUT_S = 1

FOREIGN_ERRORS: Final = (
    OSError,
    TimeoutError,
    nats.errors.Error,
    # What nats-py raises by mistake, when it meets invalid data or is closed in the middle.
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    asyncio.InvalidStateError,
    asyncio.LimitOverrunError,
)
"""What `problem` puts into words."""

CONNECTION_SETTINGS: Final = (
    "nats_url",
    "nats_tls_ca",
    "nats_tls_cert",
    "nats_tls_key",
    "nats_creds_file",
    "nats_nkey_file",
    "nats_token_file",
    "nats_user",
    "nats_password_file",
)
"""Settings of any client of NATS."""

STREAM_SETTINGS: Final = (
    *CONNECTION_SETTINGS,
    "nats_stream",
    "nats_subject",
    "nats_retention",
    "nats_storage",
    "nats_replicas",
    "nats_max_age_s",
    "nats_max_bytes",
)
"""Settings of a publisher to the stream."""


@asynccontextmanager
async def open_jetstream(config: Config, timeout_s: float) -> AsyncIterator[JetStreamContext]:
    """Connect as `open_nats` does, and make the stream when it is missing.

    Each takes `timeout_s` seconds at most.
    """
    async with open_nats(config, timeout_s) as client:
        yield await within(timeout_s, _ensure_stream(client, config, timeout_s))


@asynccontextmanager
async def open_nats(config: Config, timeout_s: float) -> AsyncIterator[NatsClient]:
    """Connect once, without silent retries, within `timeout_s` seconds.

    Raises `FOREIGN_ERRORS`, and `ConfigInvalid` for a bad file.
    """
    reasons: list[str] = []

    async def note(error: Exception) -> None:
        # nats-py reports here why a server was given up, and raises only that none is left.
        reasons.append(_why(config, error))  # not itself: it would keep the connection

    proofs = _proofs(config)
    client = NatsClient()
    servers = (config.nats_url or DEFAULT_NATS_URL).split(",")

    async def connect() -> None:
        try:
            await client.connect(
                servers,
                name="noti command",
                error_cb=note,
                connect_timeout=max(1, math.ceil(timeout_s)),
                allow_reconnect=False,
                max_reconnect_attempts=1,  # even now it would try a server 60 times, 2 s apart
                reconnect_time_wait=0,
                **proofs,
            )
        except nats.errors.NoServersError:
            raise ConnectionError(reasons[-1] if reasons else "no answer") from None

    try:
        await within(timeout_s, connect())
        yield client
    finally:
        await _close(client)


def category_message(user_id: int, category_from: str, category_to: str) -> CategoryMessage:
    """Return an event of now."""
    return CategoryMessage(
        user_id=user_id,
        category_from=category_from,
        category_to=category_to,
        created_at=datetime.now(UTC),
    )


def target_of(config: Config) -> tuple[str, str]:
    """Return the stream and its subjects to which events go: the first that takes such messages.

    Raises `ConfigInvalid` when the settings name none.
    """
    for stream in config.streams:
        for one in stream.subjects:
            if one.decoder == "category":
                return stream.name, one.subject
    if config.nats_streams:
        raise ConfigInvalid("no table [[nats_streams.subjects]] has decoder category; add one")
    [stream] = config.streams  # whose messages may be wanted whatever reads them
    if stream.subjects[0].subject == ALL_SUBJECTS:
        raise ConfigInvalid("there is no subject to publish to; name one by --nats-subject")
    return stream.name, stream.subjects[0].subject


def subject_of(config: Config, category: str) -> str:
    """Return the subject below `jobs.noti.>`; only token characters survive from the category."""
    token = "".join(char if char.isalnum() or char in "-_" else "-" for char in category) or "-"
    _, subject = target_of(config)
    return subject.replace(">", token).replace("*", token)


def shown_url(config: Config) -> object:
    """Return where NATS is, without secrets."""
    return config.masked()["nats_url"] or DEFAULT_NATS_URL


def problem(config: Config, error: Exception, timeout_s: float) -> str:
    """Return why NATS cannot be used, in one line."""
    if isinstance(error, TimeoutError | nats.errors.TimeoutError):
        return no_answer(f"NATS at {shown_url(config)}", timeout_s)
    reason = _why(config, error)
    if not isinstance(error, OSError | nats.errors.Error):
        reason = f"what answers there is no NATS server ({type(error).__name__}: {reason})"
    return f"NATS at {shown_url(config)} cannot be used: {reason}"


def _why(config: Config, error: Exception) -> str:
    """Return what happened to a connection to NATS."""
    hosts = {urlsplit(server).hostname for server in (config.nats_url or "").split(",")}
    reason = reason_of(error, hosts.pop() if len(hosts) == 1 else None)
    return CLOSED if "empty response from server" in reason else reason


async def _close(client: NatsClient) -> None:
    """Close what there is to close; after a failed handshake nats-py would wait endlessly."""
    with suppress(TimeoutError, OSError):
        await within(CLOSE_TIMEOUT_S, client.close())


async def _ensure_stream(client: NatsClient, config: Config, timeout_s: float) -> JetStreamContext:
    """Return JetStream with the stream in it."""
    jetstream = client.jetstream(timeout=timeout_s)
    name, subject = target_of(config)
    try:
        await jetstream.stream_info(name)
    except NotFoundError:
        await jetstream.add_stream(
            StreamConfig(
                name=name,
                subjects=[subject],
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
