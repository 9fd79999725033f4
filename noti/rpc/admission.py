"""Decides who of those that call the RPC port is let in, whatever they speak; asyncio.

Whoever is not is counted and logged here.
"""

import asyncio
from typing import Final

from noti.certificates.rejection_log import RejectionLog
from noti.certificates.rejections import Rejection
from noti.descriptors import STRANGERS_MAX
from noti.errors import ClusterMismatch, MessageInvalid
from noti.raft.ports import Hello
from noti.rpc.codec import decode_hello
from noti.rpc.inbox import Inbox
from noti.rpc.peer_certificates import PeerCertificates
from noti.rpc.ports import PeerHandler
from noti.rpc.rejected_calls import RejectedCalls
from noti.rpc.seats import Seated, Seats
from noti.rpc.tls import certificate_of

RAFT_METHOD: Final = "/noti.v1.Raft/Stream"

HELLO_WAIT_S: Final = 5.0
"""A dialer that opened a stream and says nothing is dropped after this; a hello takes one
packet."""


class CallerAdmission:
    """What one node asks of its callers."""

    def __init__(
        self,
        handler: PeerHandler,
        certificates: PeerCertificates,
        rejections: RejectionLog,
        rejected: RejectedCalls,
    ) -> None:
        self._handler = handler
        self._certificates = certificates
        self._rejections = rejections
        self._rejected = rejected
        self._seats = Seats(handler.standing)

    def hello(self) -> Hello:
        """Return how this node introduces itself now."""
        return self._handler.hello()

    def call_rejection(self, transport: asyncio.Transport, method: str) -> str | None:
        """Return why a caller may not call a method, to be told to it; None when it may."""
        certificate = certificate_of(transport)
        if certificate is None:
            return None
        rejection = self._certificates.call_rejection(certificate, method)
        return None if rejection is None else self._logged(transport, rejection)

    async def introduced(self, connection: Seated, inbox: Inbox) -> Hello:
        """Return who dialed a Raft stream, from its first frame, once it may use it.

        Raises `TimeoutError` when none came in `HELLO_WAIT_S`, `MessageInvalid` for one that is no
        hello, `ClusterMismatch` with the reason of a rejection, and what reading raises.
        """
        peer = await self._heard(connection.transport, inbox)
        self._seat(connection, peer)
        return peer

    async def _heard(self, transport: asyncio.Transport, inbox: Inbox) -> Hello:
        try:
            async with asyncio.timeout(HELLO_WAIT_S):
                frame = await inbox.read()
            # Not before the hello is read: who is hung up on with bytes unread may see no reason.
            rejection = self.call_rejection(transport, RAFT_METHOD)
            if rejection is None:
                peer = decode_hello(frame or b"")
                rejection = self._identity_rejection(transport, peer)
                if rejection is None:
                    self._admit(transport, peer)
                    return peer
        except TimeoutError:
            self._rejected.report(transport, "hello", f"said no hello for {HELLO_WAIT_S:g} s")
            raise
        except MessageInvalid as error:
            self._rejected.report(transport, "hello", str(error))
            raise
        except ClusterMismatch as error:
            self._rejected.report(transport, "cluster", str(error))
            raise
        raise ClusterMismatch(rejection)  # which is counted and logged with those of TLS

    def _admit(self, transport: asyncio.Transport, peer: Hello) -> None:
        proven = certificate_of(transport) is not None
        self._handler.admit(peer, proven=proven)
        if proven:
            self._certificates.remember(peer)

    def _seat(self, connection: Seated, peer: Hello) -> None:
        """Let a node stay that may come in; raises `ClusterMismatch` when it may not."""
        leaving = self._seats.take(peer.node_id, connection)
        if leaving is None:
            return
        others = f"{STRANGERS_MAX} others that are no members of the cluster either"
        if leaving == peer.node_id:
            reason = f"node {peer.name!r} came after {others}, and gossip does not know it"
            self._rejected.report(connection.transport, "stranger", reason)
            raise ClusterMismatch(reason)
        reason = f"node {peer.name!r} came after {others}: the node with id {leaving!r} had to go"
        self._rejected.report(connection.transport, "stranger", reason)

    def _identity_rejection(self, transport: asyncio.Transport, peer: Hello) -> str | None:
        """Return why a caller is not who it says, to be told to it; None when it may be."""
        certificate = certificate_of(transport)
        cluster = self._handler.hello().cluster_id
        rejection = self._certificates.peer_rejection(certificate, peer, cluster)
        return None if rejection is None else self._logged(transport, rejection)

    def _logged(self, transport: asyncio.Transport, rejection: Rejection) -> str:
        host, port = (transport.get_extra_info("peername") or ("?", 0))[:2]
        self._rejections.log(host, port, rejection)
        return f"this caller {rejection}"
