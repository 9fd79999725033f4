"""Asks nodes what they are in their cluster, again and again, for those who route traffic by it.

The answer of a node whose certificate is for another one does not count. Connections are kept, one
for each node, as a handshake costs more than a hundred questions.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import Final

from grpclib.const import Cardinality

from noti.address import Address, format_address
from noti.asyncio_loop import AsyncioLoop
from noti.certificates.names import claims, name_rejection
from noti.certificates.rejection_log import RejectionLog
from noti.errors import MessageInvalid, PeerUnavailable
from noti.protobuf import parse
from noti.rpc.answers import NodeRole, RoleName
from noti.rpc.connections import stream_of
from noti.rpc.dialing import Dialer, PeerChannel, describe, rejection_in
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.services import ROLES
from noti.rpc.tls import certificate_of

ANSWER_BYTES_MAX: Final = 4096
"""An answer holds two names of at most 128 characters."""

GET_ROLE: Final = "/noti.v1.Status/GetRole"

_ROLE_NAMES: Final[Mapping[int, RoleName]] = {number: name for name, number in ROLES.items()}


class Roles:
    """Connections to nodes, and one question. Lives inside the asyncio loop's lifetime."""

    def __init__(
        self,
        asyncio_loop: AsyncioLoop,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        *,
        plain_too: bool = False,
    ) -> None:
        """`tls` gives the context for the next connection, or None to speak plain text.

        With `plain_too`, plain text is spoken also to nodes that have no TLS.
        """
        self._asyncio_loop = asyncio_loop
        self._tls = tls
        self._plain_too = plain_too
        self._channels: dict[tuple[Address, str], PeerChannel] = {}
        self._rejections = RejectionLog("roles")

    async def ask(self, to: Address, name: str) -> NodeRole:
        """Return what the node `name` says that it is; has no time limit.

        Raises `PeerUnavailable`, also when another node answers there. *Cancellation* and errors
        close the connection; the next question opens another.
        """
        key = to, name
        channel = self._channels.pop(key, None)
        try:
            if channel is None:
                channel = await self._asyncio_loop.call(self._open, to)
            answer = await self._asyncio_loop.call(_ask, channel, name)
        except BaseException as error:
            if channel is not None:
                channel.close()
            if isinstance(error, Exception):
                raise self._unavailable(to, channel, error) from error
            raise
        if answer.name != name:
            channel.close()
            raise PeerUnavailable(f"{format_address(to)} is node {answer.name!r} and not {name!r}")
        self.forget(to, name)
        self._channels[key] = channel
        return answer

    def forget(self, to: Address, name: str) -> None:
        """Close the connection to a node, if there is one."""
        channel = self._channels.pop((to, name), None)
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Close all connections; nobody may be asking."""
        for key in list(self._channels):
            self.forget(*key)

    async def _open(self, to: Address) -> PeerChannel:
        """Return a channel, which connects when it is used; asyncio."""
        return PeerChannel(Dialer(to, self._tls(), plain_too=self._plain_too))

    def _unavailable(
        self, to: Address, channel: PeerChannel | None, error: Exception
    ) -> PeerUnavailable:
        rejection = None if channel is None else rejection_in(channel.dialer, error)
        if rejection is None:
            return PeerUnavailable(describe(to, error))
        self._rejections.log(*to, rejection)
        return PeerUnavailable(f"{format_address(to)} {rejection}")


async def _ask(channel: PeerChannel, name: str) -> NodeRole:
    cardinality, response = Cardinality.UNARY_UNARY, wire.GetRoleResponse
    async with channel.request(GET_ROLE, cardinality, wire.GetRoleRequest, response) as call:
        await call.send_request()
        stream = stream_of(call, ANSWER_BYTES_MAX)
        certificate = certificate_of(stream.connection.transport)
        if certificate is not None:
            rejection = name_rejection(claims(certificate), name)
            if rejection is not None:
                raise PeerUnavailable(f"the node there {rejection}")
        await call.send_message(wire.GetRoleRequest(), end=True)
        await call.recv_initial_metadata()
        frame = await stream.inbox.read()
        await call.recv_trailing_metadata()
    if frame is None:
        raise MessageInvalid("the answer has no message")
    answer = parse(response, frame)
    role = _ROLE_NAMES.get(answer.role, "learner")  # Whatever a newer node may be, it leads not.
    return NodeRole(answer.name, role, answer.term, answer.leader)
