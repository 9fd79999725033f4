"""One connection to NATS: how it is opened, and what the server complained about; asyncio."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import nats.errors
import nats.js.errors
import structlog

from noti.connection_errors import CLOSED, reason_of
from noti.errors import ConfigInvalid, SourceUnavailable
from noti.publishing.nats.client import NatsClient
from noti.publishing.nats.settings import NatsSettings
from noti.redaction import redacted_url

log = structlog.get_logger("noti.publishing")

T = TypeVar("T")

CONNECT_S: Final = 2
"""Time for connecting, including name lookup and the server's greeting; the bridge retries."""

REQUEST_S: Final = 2
"""Time for the server's answer to anything but a pull; a healthy one takes milliseconds."""

_PERMISSIONS: Final = "permissions violation"
"""How the server begins to say that this user may not do something; nats-py lower-cases it."""

_NO_JETSTREAM: Final = (10039, 10076)
"""Error codes of the server: not for this account, or off."""


class NatsConnection:
    """A client, with JetStream, that remembers what it was not permitted."""

    def __init__(self) -> None:
        self.client = NatsClient()
        self.jetstream = self.client.jetstream(timeout=REQUEST_S)
        self.ephemeral: tuple[str, str] | None = None
        """Stream and name of a consumer that is of use to this connection alone."""
        self._complaint = ""
        self._places = ""

    async def open(self, settings: NatsSettings) -> None:
        """Connect; raises `SourceUnavailable` within `CONNECT_S`."""
        options = _options(settings)
        self._places = ", ".join(map(redacted_url, settings.urls))
        try:
            async with asyncio.timeout(CONNECT_S):
                await self.client.connect(
                    **options,
                    servers=list(settings.urls),
                    name="noti",
                    error_cb=self._on_error,
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
            reason = self._complaint or "no answer"
            raise SourceUnavailable(
                f"cannot connect to NATS at {self._places}: {reason}"
            ) from error

    async def _on_error(self, error: Exception) -> None:
        # Instead of nats-py's default, which prints tracebacks.
        self._complaint = _why(error)
        log.debug("NATS client error", error=self._complaint)

    async def asked(self, request: Awaitable[T]) -> T:
        """Return the answer to a request to JetStream.

        Raises `SourceUnavailable` where the server has no JetStream, does not permit the request
        (which it does not answer, but complains about), or is silent for `REQUEST_S`; other errors
        of nats-py's as they are.
        """
        self.forget_refusal()
        try:
            return await request
        except (nats.errors.NoRespondersError, nats.js.errors.ServiceUnavailableError) as error:
            code = getattr(error, "err_code", None)
            if code is None or code in _NO_JETSTREAM:
                raise SourceUnavailable(
                    f"JetStream does not answer at {self._places}: it is off (nats-server -js"
                    " turns it on), not for this account, or without a leader now"
                ) from error
            raise
        except TimeoutError as error:
            self.check_permitted()
            raise SourceUnavailable(f"NATS gave no answer within {REQUEST_S} s") from error

    def forget_refusal(self) -> None:
        """Begin anew: what the server does not permit from here on is about what is asked now."""
        self._complaint = ""

    def check_permitted(self) -> None:
        """Raise `SourceUnavailable` if the server did not permit what was asked last."""
        if self.refusal is not None:
            raise SourceUnavailable(f"NATS does not permit this user: {self.refusal}")

    @property
    def refusal(self) -> str | None:
        """What the server did not permit, of what was asked last, in its own words."""
        _, found, what = self._complaint.lower().partition(_PERMISSIONS)
        if not found:
            return None
        return self._complaint[len(self._complaint) - len(what) :].strip(" '")


def _options(settings: NatsSettings) -> dict[str, Any]:
    """Return how to log in and encrypt now; raises `SourceUnavailable` for a bad file."""
    try:
        options = settings.login.options()
    except ConfigInvalid as error:
        raise SourceUnavailable(str(error)) from error
    if settings.tls is not None:
        options["tls"] = settings.tls.current
    return options


def _why(error: Exception) -> str:
    """Return an error of a connection, for a person."""
    return CLOSED if "empty response from server" in str(error) else reason_of(error)
