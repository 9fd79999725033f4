"""Promises of handshakes, over real loopback sockets."""

import socket
import ssl
from contextlib import closing, suppress

import pytest
from structlog.testing import capture_logs

from noti.certificates.rejection_log import RejectionLog
from noti.http.handshakes import HTTPS_WANTED, Handshakes
from noti.http.tls_socket import TlsSocket
from tests.http.stage import LIMIT_S
from tests.http.tls_stage import arrived, plain_pair, shared_site


def handshakes() -> Handshakes:
    return Handshakes(shared_site().tls, RejectionLog("http"))


def hello() -> bytes:
    """Return how a client begins."""
    outgoing = ssl.MemoryBIO()
    context = shared_site().trusting("http/1.1")
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_handshake_goes_on_with_every_piece_that_comes() -> None:
    far, near = plain_pair()
    with closing(near):
        there = handshakes()
        here: socket.socket = far
        done = True
        assert there.advance(far, "127.0.0.1") == (far, False), "nothing came"
        for byte in hello():
            near.send(bytes((byte,)))
            arrived(here)
            advanced = there.advance(here, "127.0.0.1")
            assert advanced is not None
            here, done = advanced
        assert isinstance(here, TlsSocket)
        assert not done
        near.settimeout(LIMIT_S)
        assert near.recv(5)[:1] == b"\x16", "the answer"
        here.close()


def test_handshake_waits_for_room() -> None:
    far, near = socket.socketpair()
    far.setblocking(False)
    with closing(near):
        near.send(hello())
        with suppress(BlockingIOError):
            while True:
                far.send(bytes(1000))
        advanced = handshakes().advance(far, "127.0.0.1")
        assert advanced is not None
        here, done = advanced
        assert isinstance(here, TlsSocket)
        assert here.awaits_room
        assert not done
        here.close()


def test_who_hangs_up_before_a_word_is_not_logged() -> None:
    far, near = plain_pair()
    near.close()
    arrived(far)
    with capture_logs() as logs:
        assert handshakes().advance(far, "127.0.0.1") is None
    assert logs == []


def test_who_speaks_plain_http_is_told_to_use_https() -> None:
    far, near = plain_pair()
    with closing(near), capture_logs() as logs:
        near.send(b"GET / HTTP/1.1\r\n\r\n")
        arrived(far)
        assert handshakes().advance(far, "127.0.0.1") is None
        near.settimeout(LIMIT_S)
        assert near.recv(1000) == HTTPS_WANTED
        assert near.recv(1000) == b""
    assert "speaks plain HTTP" in logs[0]["event"]


def test_who_speaks_plain_http_goes_on_where_that_is_taken_too() -> None:
    far, near = plain_pair()
    permissive = Handshakes(shared_site().tls, RejectionLog("http"), plain_too=True)
    with closing(near), closing(far), capture_logs() as logs:
        assert permissive.advance(far, "127.0.0.1") == (far, False), "nobody knows yet"
        near.send(b"GET / HTTP/1.1\r\n\r\n")
        arrived(far)
        assert permissive.advance(far, "127.0.0.1") == (far, True)
        assert far.recv(3) == b"GET"
    assert "speaks plain HTTP" in logs[0]["event"]


@pytest.mark.parametrize(
    "bytes_sent",
    [b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\x00\x05hello" + bytes(3000)],
)
def test_broken_handshake_gets_an_alert_and_is_logged(bytes_sent: bytes) -> None:
    far, near = plain_pair()
    with closing(near), capture_logs() as logs:
        near.send(bytes_sent)
        arrived(far)
        assert handshakes().advance(far, "127.0.0.1") is None
        near.settimeout(LIMIT_S)
        assert near.recv(1000)[:1] == b"\x15", "an alert, not a reset"
        assert near.recv(1000) == b""
    assert len(logs) == 1
