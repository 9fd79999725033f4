"""Every kind of peer that a node must reject, ready to call it or to be called.

    for peer in BAD_PEERS:
        context = peer.context(ca, tmp_path)            # to call a node
        context = peer.context(ca, tmp_path, server=True)  # to be called by a node
        ... introduce yourself as `CLAIMED_NAME`: rejected with `peer.reason`, in the handshake or,
        where `peer.handshake` is false, at the first message.

Made with plain `ssl`, as a foreigner would: our own code would reject most of them at once. A peer
called over plain text (reason "plain") needs no context, and so is not here.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from noti.certificates.rejections import Reason
from tests.certificates.authority import CLIENT, DAY, SERVER, Issued, Wanted, authority, issue, node

CLAIMED_NAME = "node3"
"""The name by which every bad peer introduces itself; good is `good_context`."""

Maker = Callable[[Issued], Issued | None]
_GOOD = Wanted(common_name=CLAIMED_NAME, dns=(CLAIMED_NAME,))


@dataclass(frozen=True)
class BadPeer:
    """One way to be rejected."""

    name: str
    reason: Reason
    """The label under which the refusing side counts it."""
    make: Maker
    """From the cluster's CA to what the peer shows; None for no certificate."""
    handshake: bool = True
    """Whether TLS itself rejects; otherwise only the claimed name gives it away."""
    version_max: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3

    def __str__(self) -> str:
        return self.name

    def context(self, ca: Issued, directory: Path, *, server: bool = False) -> ssl.SSLContext:
        """Return what the peer uses; it accepts everybody itself, so that only we reject."""
        return peer_context(self.make(ca), directory, server=server, version_max=self.version_max)


def peer_context(
    shown: Issued | None,
    directory: Path,
    *,
    server: bool = False,
    version_max: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    """Return a context that shows `shown` and verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version_max
    context.set_alpn_protocols(["h2"])
    if shown is not None:
        context.load_cert_chain(*shown.write(directory, "peer"))
    return context


def good_context(ca: Issued, directory: Path, *, server: bool = False) -> ssl.SSLContext:
    """Return what a peer uses that may rightly say it is `CLAIMED_NAME`."""
    return peer_context(issue(_GOOD, ca), directory, server=server)


def _issued(wanted: Wanted) -> Maker:
    return lambda ca: issue(wanted, ca)


def _issued_by_a_node(ca: Issued) -> Issued:
    node2 = node("node2", ca)
    return replace(issue(_GOOD, node2), chain=(node2.certificate,))


def _impostor(ca: Issued) -> Issued:
    """Return another CA with the same name."""
    [common_name] = ca.certificate.subject
    return authority(str(common_name.value))


BAD_PEERS = (
    BadPeer("TLS 1.2", "protocol", _issued(_GOOD), version_max=ssl.TLSVersion.TLSv1_2),
    BadPeer("no certificate", "missing", lambda _: None),
    BadPeer("wrong CA", "issuer", lambda _: issue(_GOOD, authority("another CA"))),
    BadPeer(
        "wrong CA of the same name",
        "issuer",
        lambda ca: issue(replace(_GOOD, claims_key_of=ca), _impostor(ca)),
    ),
    BadPeer("issued by a node", "issuer", _issued_by_a_node),
    BadPeer("self-signed", "self_signed", lambda _: issue(_GOOD)),
    BadPeer("expired", "expired", _issued(replace(_GOOD, starts=-2 * DAY, ends=-DAY))),
    BadPeer("not yet valid", "not_yet_valid", _issued(replace(_GOOD, starts=DAY))),
    BadPeer("another node's name", "name", lambda ca: node("node2", ca), handshake=False),
    BadPeer("without name", "unnamed", _issued(Wanted(common_name=CLAIMED_NAME)), handshake=False),
    BadPeer(
        "client certificate",
        "usage",
        _issued(Wanted(uris=(f"noti-client://{CLAIMED_NAME}",), usages=(CLIENT,))),
        handshake=False,
    ),
    BadPeer("no usage stated", "usage", _issued(replace(_GOOD, usages=None)), handshake=False),
)
"""What is rejected whoever calls whom, but for a client certificate: as a server TLS rejects it."""

WRONG_USAGE_CALLING = BadPeer("wrong usage", "usage", _issued(replace(_GOOD, usages=(SERVER,))))
WRONG_USAGE_CALLED = BadPeer("wrong usage", "usage", _issued(replace(_GOOD, usages=(CLIENT,))))

BAD_CALLERS = (*BAD_PEERS, WRONG_USAGE_CALLING)
"""Peers that call a node."""
BAD_CALLED = (
    *(
        replace(peer, handshake=True) if peer.name == "client certificate" else peer
        for peer in BAD_PEERS
        if peer.name != "no certificate"  # a server without one cannot even begin
    ),
    WRONG_USAGE_CALLED,
)
"""Peers that a node calls."""
