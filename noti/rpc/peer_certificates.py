"""Holds what peers and clients say about themselves against certificates that TLS has verified.

Node certificates may do everything, client certificates may read. Methods that are not listed as
reading are for nodes only, so that a new one is closed to clients until somebody opens it.

A node id belongs to one name permanently (both live in one data directory), and Raft knows nodes by
their ids: so a name that was proven for an id is kept, and nobody else can come with that id.
"""

from typing import Final

from noti.certificates.names import Claims, claims, name_rejection
from noti.certificates.rejections import Rejection
from noti.errors import MessageInvalid
from noti.raft.core.messages import NodeId
from noti.raft.ports import Hello

READING_METHODS: Final = frozenset(
    {
        "/notification.v1.Notification/GetServers",
        "/notification.v1.Notification/GetLeaderStatus",
        "/noti.v1.Status/GetRole",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    }
)

PROVEN_MAX: Final = 1024
"""Node ids remembered with their names; a cluster has a few."""


class PeerCertificates:
    """What one node knows about who its peers really are."""

    def __init__(self) -> None:
        self._proven: dict[NodeId, str] = {}

    def call_rejection(self, certificate: bytes, method: str) -> Rejection | None:
        """Return why the holder may not call a method."""
        held = _claims(certificate)
        if isinstance(held, Rejection):
            return held
        match held.profile:
            case "node":
                return None
            case "client" if method in READING_METHODS:
                return None
            case "client":
                return Rejection("usage", f"is {held}, which may read status and not call {method}")
            case None if held.nodes or held.clients:
                lacking = "clientAuth" if held.may_serve else "serverAuth"
                return Rejection(
                    "usage", f"shows a certificate for {held} without extended key usage {lacking}"
                )
            case None:
                return Rejection(
                    "unnamed", "shows a certificate that names neither node nor client"
                )

    def peer_rejection(
        self, certificate: bytes | None, peer: Hello, cluster: str
    ) -> Rejection | None:
        """Return why the holder is not the node that `peer` says; `cluster` is ours, or empty.

        Who has no certificate, as he speaks plain text, must not come with the id of one that had.
        """
        if certificate is not None:
            held = _claims(certificate)
            found = (
                held if isinstance(held, Rejection) else name_rejection(held, peer.name, cluster)
            )
            if found is not None:
                return found
        proven = self._proven.get(peer.node_id, peer.name)
        if proven != peer.name:
            return Rejection(
                "name", f"is node {peer.name!r} and comes with the node id of node {proven!r}"
            )
        return None

    def remember(self, peer: Hello) -> None:
        """Keep the id of a peer for its name, once everybody else has accepted it."""
        if peer.node_id not in self._proven and len(self._proven) >= PROVEN_MAX:
            self._proven.pop(next(iter(self._proven)))
        self._proven[peer.node_id] = peer.name


def _claims(certificate: bytes) -> Claims | Rejection:
    try:
        return claims(certificate)
    except MessageInvalid as error:
        return Rejection("other", f"shows a certificate that cannot be read: {error}")
