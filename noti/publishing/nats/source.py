"""NATS JetStream as the source of events, read through a durable pull consumer.

There is one connection per session and no reconnecting inside it: whatever goes wrong, the session
ends with `SourceUnavailable` and the bridge opens a new one. So there is one way back into a known
state, and it is used every time; no task and no connection outlives its session. Functions whose
name ends in `_aio` are asyncio and run on the asyncio loop.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
import structlog
import trio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from noti.asyncio_loop import AsyncioLoop
from noti.certificates.rejections import handshake_rejection
from noti.certificates.renewal import Current
from noti.errors import ConfigInvalid, NotiError, SourceUnavailable
from noti.publishing.nats.client import NatsClient
from noti.publishing.nats.login import NatsLogin
from noti.publishing.nats.ports import DeadLetter, SourceLag, SourceMessage
from noti.publishing.nats.pull import Pull
from noti.stream_settings import ALL_SUBJECTS
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.publishing")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CONNECT_S: Final = 2
"""Time for connecting, including name lookup and the server's greeting; the bridge retries."""

REQUEST_S: Final = 2
"""Time for the server's answer to anything but a pull; a healthy one takes milliseconds."""

ACK_WAIT_S: Final = 3600.0
"""Redelivery within a session would break the order, so it is put out of reach: a session ends long
before, and the next one begins with a new consumer to which everything unacknowledged comes."""

CLEANUP_S: Final = 1.0
"""For closing a connection; a dead one is left to the operating system."""

CALL_S: Final = 10.0
"""For anything but the waiting in a fetch: a few requests. A call that takes longer hangs, in the
server or in nats-py, and its connection is given up."""

_USUAL_ERRORS: Final = (nats.errors.Error, OSError, TimeoutError, NotiError)
"""What nats-py raises when something is wrong outside of it; anything else is its bug, or ours."""


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where events come from. The stream's settings count only when it has to be created."""

    urls: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    """Servers of one NATS cluster, tried in random order; may hold user and password."""
    stream: str = "jobs"
    subjects: tuple[str, ...] = ("jobs.noti.>",)
    """Subjects to read; the new stream gets exactly these."""
    durable: str = "noti"
    """Name of the consumer. One cluster of noti, one name."""
    retention: Literal["workqueue", "limits", "interest"] = "workqueue"
    """`workqueue` deletes a message once it is acknowledged, `interest` once all consumers have;
    `limits` keeps it for other readers."""
    max_age_s: float = 0.0
    """Messages older than this are dropped unread; 0 means never."""
    max_bytes: int = -1
    """Oldest messages are dropped unread above this size; -1 means no limit."""
    storage: Literal["file", "memory"] = "file"
    replicas: int = 1
    """Copies in the NATS cluster: 1, 3 or 5."""
    max_ack_pending: int = 4096
    """Messages the server hands out before the first is acknowledged; at least two fetches."""
    dead_letter: str = "noti.dead-letter.jobs"
    """Subject for copies of what can never be an event."""
    login: NatsLogin = field(default_factory=NatsLogin)
    tls: Current[ssl.SSLContext] | None = None
    """Makes TLS a must; without, it is one for `tls://` URLs, with the system's CAs."""


class NatsSource:
    """Opens sessions on one asyncio loop, which must outlive them."""

    def __init__(self, asyncio_loop: AsyncioLoop, settings: NatsSettings) -> None:
        self._asyncio_loop = asyncio_loop
        self._edge = _Edge(asyncio_loop)
        self._settings = settings

    @asynccontextmanager
    async def open(self) -> AsyncIterator["NatsSession"]:
        """Connect, and create the stream when it is missing.

        Raises `SourceUnavailable` within `CONNECT_S` plus two requests. *Resource handling*: the
        connection is closed on the way out.
        """
        call = self._edge.call
        with self._asyncio_loop.held():
            client = NatsClient()
            try:
                yield await call(_open_aio, self._edge, client, self._settings)
            finally:
                with trio.move_on_after(CLEANUP_S, shield=True):
                    # An error while closing a broken connection has no news for anybody.
                    try:
                        await call(client.close)
                    except SourceUnavailable as error:
                        log.debug("closing the NATS connection failed", error=str(error))


class _Edge:
    """The edge at which foreign exceptions stop, whatever they are."""

    def __init__(self, asyncio_loop: AsyncioLoop) -> None:
        self._asyncio_loop = asyncio_loop
        self._throttled = ThrottledLog(trio.current_time)

    async def call(
        self,
        function: Callable[[*Ts], Awaitable[T]],
        *args: *Ts,
        wait_s: float = 0.0,
    ) -> T:
        """Run `function` on the asyncio loop, which may wait for `wait_s` seconds by intent.

        Raises `SourceUnavailable`, and nothing else.

        An error that nobody foresaw is logged with its traceback, throttled.
        """
        try:
            with trio.move_on_after(wait_s + CALL_S):
                return await self._asyncio_loop.call(function, *args)
        except SourceUnavailable:
            raise
        except _USUAL_ERRORS as error:
            raise SourceUnavailable(f"NATS: {str(error) or type(error).__name__}") from error
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._throttled.log(log.exception, "the NATS client failed", text)
            raise SourceUnavailable(f"the NATS client failed: {text}") from error
        raise SourceUnavailable(f"NATS: no answer within {wait_s + CALL_S:g} s")


def _options(settings: NatsSettings) -> dict[str, Any]:
    """Return how to log in and encrypt now; raises `SourceUnavailable` for a bad file."""
    try:
        options = settings.login.options()
    except ConfigInvalid as error:
        raise SourceUnavailable(str(error)) from error
    if settings.tls is not None:
        options["tls"] = settings.tls.current
    return options


class NatsSession:
    """One connection, and one consumer made for it."""

    def __init__(
        self,
        edge: _Edge,
        client: Client,
        jetstream: JetStreamContext,
        settings: NatsSettings,
        info: api.StreamInfo,
    ) -> None:
        self._edge = edge
        self._client = client
        self._jetstream = jetstream
        self._settings = settings
        self._retention = info.config.retention
        self._stream = f"{info.config.name}@{info.created.isoformat() if info.created else ''}"
        self._after_seq = 0
        self._pull: Pull | None = None
        # Sequence and time (ms) of what was fetched and is not settled, in the order of the stream.
        self._unsettled: dict[int, int] = {}

    @property
    def stream(self) -> str:
        """Name and creation time of the stream."""
        return self._stream

    @property
    def acknowledges(self) -> bool:
        """Whether the server keeps each message until it is acknowledged."""
        return True

    async def begin(self, after_seq: int) -> None:
        """Delete the durable consumer, if there is one, and make it anew.

        With the old consumer, a message that a dead leader had taken but not acknowledged would
        come only after AckWait, behind later ones. To a new consumer, everything that is still in
        the stream comes at once, in stream order.
        """
        await self._edge.call(self._begin_aio, after_seq)

    async def fetch(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        """Return what is there, up to `messages_max`; wait up to `wait_s` for the first.

        Messages up to the `after_seq` of `begin` were committed earlier: they are acknowledged and
        not returned. *Cancellation* loses nothing.
        """
        return await self._edge.call(self._fetch_aio, messages_max, wait_s, wait_s=wait_s)

    async def ack(self, messages: Sequence[SourceMessage]) -> None:
        """Acknowledge; returns when the server has read the acks.

        Should one get lost after that, the message comes again in the next session and is dropped
        by the store: this is why no answer to each ack is awaited.
        """
        tokens = [message.token for message in messages]
        await self._edge.call(self._acknowledge_aio, tokens, b"+ACK")

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Tell the server never to deliver these messages again."""
        tokens = [letter.message.token for letter in letters]
        await self._edge.call(self._acknowledge_aio, tokens, b"+TERM")

    def lag(self) -> SourceLag:
        """Return how far this reader is behind, by the last messages."""
        if self._pull is None:
            return SourceLag(0, 0, None)
        unacknowledged = len(self._unsettled) + self._pull.arrived
        oldest_ms = next(iter(self._unsettled.values()), None)
        return SourceLag(self._pull.pending, unacknowledged, oldest_ms)

    async def _begin_aio(self, after_seq: int) -> None:
        settings = self._settings
        if self._retention == api.RetentionPolicy.INTEREST:
            raise SourceUnavailable(
                f"stream {settings.stream} has interest retention: it would lose events whenever "
                "its reader changes; use workqueue or limits retention"
            )
        config = api.ConsumerConfig(
            durable_name=settings.durable,
            name=settings.durable,
            filter_subjects=list(settings.subjects),
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_deliver=-1,
            max_ack_pending=settings.max_ack_pending,
            # A work queue allows no other policy; it holds little that was acknowledged.
            deliver_policy=api.DeliverPolicy.ALL,
        )
        if self._retention != api.RetentionPolicy.WORK_QUEUE:
            config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = after_seq + 1
        try:
            await self._jetstream.delete_consumer(settings.stream, settings.durable)
        except nats.js.errors.NotFoundError:
            log.debug("no consumer to replace", stream=settings.stream, durable=settings.durable)
        consumer = await self._jetstream.add_consumer(settings.stream, config=config)
        self._after_seq = after_seq
        self._unsettled.clear()
        self._pull = Pull(self._client, self._jetstream, consumer)
        await self._pull.subscribe()

    async def _fetch_aio(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        assert self._pull is not None, "begin comes before fetch"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            received = await self._pull.receive(messages_max, max(0, deadline - loop.time()))
            fresh: list[Msg] = []
            old: list[Msg] = []
            for message in received:
                place = message.metadata.sequence.stream
                if place > self._after_seq:
                    fresh.append(message)
                    self._unsettled[place] = int(message.metadata.timestamp.timestamp() * 1000)
                else:
                    old.append(message)
            if old:
                await self._acknowledge_aio(old, b"+ACK")
            if fresh or loop.time() >= deadline:
                return [_source_message(message) for message in fresh]

    async def _acknowledge_aio(self, messages: Sequence[Any], word: bytes) -> None:
        for message in messages:
            await self._client.publish(message.reply, word)
        await self._client.flush(REQUEST_S)
        for message in messages:
            self._unsettled.pop(message.metadata.sequence.stream, None)


async def _open_aio(edge: _Edge, client: Client, settings: NatsSettings) -> NatsSession:
    await _connect_aio(client, settings, _options(settings))
    jetstream = client.jetstream(timeout=REQUEST_S)
    try:
        info = await jetstream.stream_info(settings.stream)
    except nats.js.errors.NotFoundError:
        if ALL_SUBJECTS in settings.subjects:
            raise SourceUnavailable(
                f"there is no stream {settings.stream}, and no subjects are named to make it of;"
                f" make it, nats stream add {settings.stream}, or name --nats-subject"
            ) from None
        info = await jetstream.add_stream(
            name=settings.stream,
            subjects=list(settings.subjects),
            retention=api.RetentionPolicy(settings.retention),
            storage=api.StorageType(settings.storage),
            max_age=settings.max_age_s,
            max_bytes=settings.max_bytes,
            num_replicas=settings.replicas,
        )
        log.info("created the stream", stream=settings.stream, retention=settings.retention)
    return NatsSession(edge, client, jetstream, settings, info)


async def _connect_aio(client: Client, settings: NatsSettings, options: dict[str, Any]) -> None:
    reason = "no answer"

    async def on_error(error: Exception) -> None:
        # Instead of nats-py's default, which prints tracebacks.
        nonlocal reason
        reason = _why(error)
        log.debug("NATS client error", error=reason)

    try:
        async with asyncio.timeout(CONNECT_S):
            await client.connect(
                **options,
                servers=list(settings.urls),
                name="noti",
                error_cb=on_error,
                allow_reconnect=False,
                # nats-py reads 0 as "for ever"; after this many failures a server is given up.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_S,
                # Finds a server that stopped without a word, also while no request is open.
                ping_interval=2,
                max_outstanding_pings=2,
            )
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
        places = ", ".join(_without_password(url) for url in settings.urls)
        raise SourceUnavailable(f"cannot connect to NATS at {places}: {reason}") from error


def _why(error: Exception) -> str:
    """Return an error of a connection, for a person."""
    if isinstance(error, ssl.SSLError):
        return f"the server {handshake_rejection(error)}"
    return str(error) or type(error).__name__


def _source_message(message: Msg) -> SourceMessage:
    return SourceMessage(
        seq=message.metadata.sequence.stream,
        subject=message.subject,
        payload=message.data,
        headers={name.lower(): [value] for name, value in (message.headers or {}).items()},
        published_ms=int(message.metadata.timestamp.timestamp() * 1000),
        token=message,
    )


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path
