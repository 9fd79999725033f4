"""What all who dial a node have in common: the connection, and what went wrong, as one line.

Exceptions of grpclib, h2 and the system end here.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import Final, TypeVar

from grpclib.client import Channel, Handler
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.exceptions import ProtocolError as GrpclibError
from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from noti.address import Address, format_address
from noti.certificates.context import HTTP_2
from noti.certificates.rejections import Rejection, handshake_rejection
from noti.connection_errors import reason_of
from noti.errors import NotiError, Unavailable
from noti.rpc.connections import KeepAlive, PeerProtocol
from noti.rpc.frame_connections import FrameConnection
from noti.rpc.tls import TlsTransport

_HTTP_STATUS: Final = re.compile(r":status = '(\d+)'")
"""In what grpclib says of a server that speaks HTTP/2, and no gRPC."""

P = TypeVar("P", bound=asyncio.Protocol)

FOREIGN_ERRORS: Final = (
    GRPCError,
    GrpclibError,
    StreamTerminatedError,
    H2Error,
    OSError,
    Unavailable,
)


class Dialer:
    """Connects to one node, with TLS or without, and knows what broke the connection; asyncio.

    One connection at a time.
    """

    def __init__(
        self, to: Address, context: ssl.SSLContext | None, *, plain_too: bool = False
    ) -> None:
        """`context` is None to speak plain text.

        With `plain_too`, plain text is spoken also where the other side has no TLS, each time that
        it is dialed: nothing is remembered, as TLS may be switched on there, or off.
        """
        self.to = to
        self.context = context
        self._plain_too = plain_too
        self._dialed: asyncio.Protocol | None = None
        self._secured: TlsTransport | None = None

    @property
    def failure(self) -> Exception | None:
        """What broke the connection, if something did."""
        return None if self._secured is None else self._secured.failure

    @property
    def wants_tls(self) -> bool:
        """Whether this end has no TLS, and the other one said that it takes nothing else."""
        dialed = self._dialed
        return isinstance(dialed, PeerProtocol) and dialed.goaway == ErrorCodes.INADEQUATE_SECURITY

    @property
    def is_secured(self) -> bool:
        """Whether the connection has TLS."""
        return self._secured is not None

    async def connect(self, applications: Mapping[str, P], plain: str = HTTP_2) -> P:
        """Connect, and return which of the applications got the connection.

        With TLS that is the one for what the two have agreed on (ALPN), without it that for
        `plain`. Raises what `ssl` raises, and `OSError`. *Cancellation* closes the connection.
        """
        self.close()
        self._dialed = None
        spoken = await self._spoken_with_tls(applications)
        if spoken is None:
            spoken = plain
            await asyncio.get_running_loop().create_connection(
                lambda: applications[spoken], *self.to
            )
        self._dialed = dialed = applications[spoken]
        return dialed

    async def _spoken_with_tls(self, applications: Mapping[str, P]) -> str | None:
        """Connect with TLS, and return what is spoken; None to connect without it."""
        context = self.context
        if context is None:
            return None
        try:
            # Made when the connection is there: it warns about one that never came to be.
            _, self._secured = await asyncio.get_running_loop().create_connection(
                lambda: TlsTransport(applications, context, server_side=False), *self.to
            )
            return await self._secured.shake_hands()
        except ssl.SSLError as error:
            if not (self._plain_too and _has_no_tls(handshake_rejection(error))):
                raise
            self._secured = None
            return None

    def close(self) -> None:
        """Close the connection once what was written has left, if there is one."""
        if isinstance(self._dialed, PeerProtocol):
            self._dialed.processor.close()
        elif isinstance(self._dialed, FrameConnection):
            self._dialed.close()


class PeerChannel(Channel):
    """A grpclib channel on a dialer's connection.

    Made inside the loop; connects when it is used, and again after the connection was lost. One
    call at a time.
    """

    def __init__(self, dialer: Dialer, dialed: PeerProtocol | None = None) -> None:
        """`dialed` is the connection that is there already, if there is one."""
        super().__init__(*dialer.to, ssl=dialer.context)
        self.dialer = dialer
        self._dialed = dialed

    async def __connect__(self) -> PeerProtocol:
        """Return the connection; see grpclib."""
        if self._dialed is None or self._dialed.connection.is_closing():
            self._dialed = await self.dialer.connect({HTTP_2: peer_protocol()})
        if self._dialed.connection.is_closing():
            raise ConnectionResetError("the peer closed the connection at once")
        return self._dialed

    def close(self) -> None:
        """Close the connection; see grpclib."""
        self.dialer.close()


def peer_protocol() -> PeerProtocol:
    """Return the calling end of a connection of gRPC."""
    return PeerProtocol(Handler(), client_side=True, keepalive=KeepAlive())


def _has_no_tls(rejection: Rejection) -> bool:
    return rejection.reason in ("protocol", "plain")


def rejection_in(dialer: Dialer, error: Exception) -> Rejection | None:
    """Return what TLS has to do with an error, if anything."""
    if dialer.wants_tls:
        return Rejection("rejected_us", "takes TLS only, and this node has none; set --tls-cert")
    broken = error if isinstance(error, ssl.SSLError) else dialer.failure
    if not isinstance(broken, ssl.SSLError):
        return None
    rejection = handshake_rejection(broken)
    if _has_no_tls(rejection):
        return Rejection(rejection.reason, f"{rejection.text}; has it no --tls-cert?")
    return rejection


def describe(to: Address, error: Exception) -> str:
    """Return what went wrong on the way to a node, as one line."""
    where = format_address(to)
    if isinstance(error, GRPCError):
        if status := _HTTP_STATUS.search(error.message or ""):
            return f"{where} answers with HTTP status {status[1]}"
        return f"{where} rejected: {error.message or error.status.name}"
    if isinstance(error, StreamTerminatedError) and str(error) == "Connection lost":
        reason = "it closed the connection"
    elif isinstance(error, OSError | NotiError):
        reason = reason_of(error, to[0])
    else:
        reason = f"{type(error).__name__}: {error}"
    return f"cannot reach {where}: {reason}"
