"""Every bad peer is rejected in the handshake or by its name, for the reason that is counted."""

import ssl
from pathlib import Path

import pytest

from noti.certificates.context import mutual_client_context, mutual_server_context
from noti.certificates.credentials import load_credentials
from noti.certificates.names import claims, name_rejection
from noti.certificates.rejections import Rejection, handshake_rejection
from tests.certificates.authority import authority, node
from tests.certificates.bad import (
    BAD_CALLED,
    BAD_CALLERS,
    CLAIMED_NAME,
    BadPeer,
    good_context,
    peer_context,
)
from tests.certificates.handshake import Outcome, shake_hands

CA = authority()


@pytest.fixture
def own(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of node1: as server, as client."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CA.pem)
    credentials = load_credentials(*node("node1", CA).write(tmp_path, "node1"), ca)
    return mutual_server_context(credentials), mutual_client_context(credentials)


def rejection(error: ssl.SSLError | None, connection: ssl.SSLObject) -> Rejection | None:
    if error is not None:
        return handshake_rejection(error)
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return name_rejection(claims(der), CLAIMED_NAME)


@pytest.mark.parametrize("peer", BAD_CALLERS, ids=str)
def test_bad_caller_is_rejected(
    own: tuple[ssl.SSLContext, ssl.SSLContext], peer: BadPeer, tmp_path: Path
) -> None:
    outcome = shake_hands(own[0], peer.context(CA, tmp_path))
    assert (outcome.server is not None) == peer.handshake
    rejected = rejection(outcome.server, outcome.server_object)
    assert rejected is not None
    assert rejected.reason == peer.reason, rejected.text


@pytest.mark.parametrize("peer", BAD_CALLED, ids=str)
def test_bad_called_peer_is_rejected(
    own: tuple[ssl.SSLContext, ssl.SSLContext], peer: BadPeer, tmp_path: Path
) -> None:
    outcome = shake_hands(peer.context(CA, tmp_path, server=True), own[1])
    assert (outcome.client is not None) == peer.handshake
    rejected = rejection(outcome.client, outcome.client_object)
    assert rejected is not None
    assert rejected.reason == peer.reason, rejected.text


def test_good_peer_is_accepted_both_ways(
    own: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    calls = shake_hands(own[0], good_context(CA, tmp_path))
    called = shake_hands(good_context(CA, tmp_path, server=True), own[1])
    assert rejection(calls.server, calls.server_object) is None
    assert rejection(called.client, called.client_object) is None


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_plain_text_is_distinguished(
    own: tuple[ssl.SSLContext, ssl.SSLContext], text: bytes
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(text)
    with pytest.raises(ssl.SSLError) as caught:
        own[0].wrap_bio(incoming, outgoing, server_side=True).do_handshake()
    assert handshake_rejection(caught.value).reason == "plain"


def test_who_is_rejected_learns_why(tmp_path: Path) -> None:
    """A node whose certificate the other side does not accept counts that as its own trouble."""
    ca = tmp_path / "ca.pem"
    other = authority("other CA")
    ca.write_bytes(CA.pem)
    server = mutual_server_context(load_credentials(*node("a", CA).write(tmp_path, "a"), ca))
    ca.write_bytes(other.pem + CA.pem)
    stranger = load_credentials(*node("b", other).write(tmp_path, "b"), ca)
    outcome: Outcome = shake_hands(server, mutual_client_context(stranger))
    assert outcome.client is not None
    assert handshake_rejection(outcome.client) == Rejection(
        "rejected_us", "does not know the CA of our certificate"
    )


def test_peer_without_certificate_learns_that_one_is_wanted(
    own: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    outcome = shake_hands(own[0], peer_context(None, tmp_path))
    assert outcome.client is not None
    assert handshake_rejection(outcome.client).reason == "rejected_us"
