"""What all who dial a node have in common: the connection, and what went wrong, as one line.

Exceptions of grpclib, h2 and the system end here.
"""

import asyncio
import re
import ssl
from typing import Final

from grpclib.client import Channel, Handler
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.exceptions import ProtocolError as GrpclibError
from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from noti.address import Address, format_address
from noti.certificates.rejections import Rejection, handshake_rejection
from noti.connection_errors import reason_of
from noti.errors import NotiError, Unavailable
from noti.rpc.connections import KeepAlive, PeerProtocol
from noti.rpc.tls import TlsTransport

_HTTP_STATUS: Final = re.compile(r":status = '(\d+)'")
"""In what grpclib says of a server that speaks HTTP/2, and no gRPC."""

FOREIGN_ERRORS: Final = (
    GRPCError,
    GrpclibError,
    StreamTerminatedError,
    H2Error,
    OSError,
    Unavailable,
)


class PeerChannel(Channel):
    """A grpclib channel, with TLS or without, which knows what ended its connection.

    Made inside the loop; connects when it is used, and again after the connection was lost. One
    call at a time.
    """

    def __init__(
        self, to: Address, context: ssl.SSLContext | None, *, plain_too: bool = False
    ) -> None:
        """`context` is None to speak plain text.

        With `plain_too`, plain text is spoken also where the other side has no TLS, each time that
        it is dialed: nothing is remembered, as TLS may be switched on there, or off.
        """
        super().__init__(*to, ssl=context)
        self._to = to
        self._context = context
        self._plain_too = plain_too
        self._dialed: PeerProtocol | None = None
        self._secured: TlsTransport | None = None

    @property
    def failure(self) -> Exception | None:
        """What broke the connection, if something did."""
        return None if self._secured is None else self._secured.failure

    @property
    def wants_tls(self) -> bool:
        """Whether this end has no TLS, and the other one said that it takes nothing else."""
        return self._dialed is not None and self._dialed.goaway == ErrorCodes.INADEQUATE_SECURITY

    async def __connect__(self) -> PeerProtocol:
        """Return the connection; see grpclib."""
        if self._dialed is None or self._dialed.connection.is_closing():
            self._dialed = await self._dial()
        return self._dialed

    async def _dial(self) -> PeerProtocol:
        context = self._context
        if context is not None:
            try:
                return await self._dial_with_tls(context)
            except ssl.SSLError as error:
                if not (self._plain_too and _has_no_tls(handshake_rejection(error))):
                    raise
                self._secured = None
        dialed = _protocol()
        await asyncio.get_running_loop().create_connection(lambda: dialed, *self._to)
        return _open(dialed)

    async def _dial_with_tls(self, context: ssl.SSLContext) -> PeerProtocol:
        dialed = _protocol()
        # Made when the connection is there: it warns about one that never came to be.
        _, self._secured = await asyncio.get_running_loop().create_connection(
            lambda: TlsTransport(dialed, context, server_side=False), *self._to
        )
        await self._secured.shake_hands()
        return _open(dialed)

    def close(self) -> None:
        """Close the connection; see grpclib."""
        if self._dialed is not None:
            self._dialed.processor.close()


def _protocol() -> PeerProtocol:
    return PeerProtocol(Handler(), client_side=True, keepalive=KeepAlive())


def _open(dialed: PeerProtocol) -> PeerProtocol:
    if dialed.connection.is_closing():
        raise ConnectionResetError("the peer closed the connection at once")
    return dialed


def _has_no_tls(rejection: Rejection) -> bool:
    return rejection.reason in ("protocol", "plain")


def rejection_in(channel: PeerChannel, error: Exception) -> Rejection | None:
    """Return what TLS has to do with an error, if anything."""
    if channel.wants_tls:
        return Rejection("rejected_us", "takes TLS only, and this node has none; set --tls-cert")
    broken = error if isinstance(error, ssl.SSLError) else channel.failure
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
