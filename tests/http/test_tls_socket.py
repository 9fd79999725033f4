"""Promises of a connection over TLS that is used like a socket, over real loopback sockets."""

import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from noti.http.tls_socket import RECORD_BYTES, TlsSocket, scheme_of
from tests.http.stage import LIMIT_S
from tests.http.tls_stage import arrived, plain_pair, secured_pair


@contextmanager
def connected() -> Iterator[tuple[TlsSocket, ssl.SSLSocket]]:
    far, near = secured_pair()
    with closing(far), closing(near):
        yield far, near


def take(near: ssl.SSLSocket, size: int = 65536) -> bytes:
    """Take what is there."""
    try:
        return near.recv(size)
    except ssl.SSLWantReadError:
        return b""


def read_to_end(near: ssl.SSLSocket) -> bytes:
    near.settimeout(LIMIT_S)
    return b"".join(iter(lambda: near.recv(65536), b""))


def send_until_full(far: TlsSocket, data: bytes) -> int:
    """Send `data` until it does not go through; return how often it did."""
    sent = 0
    while True:
        try:
            assert far.send(data) == len(data), "all of it, or nothing"
        except BlockingIOError:
            return sent
        sent += 1


@pytest.mark.parametrize("seed", range(20))
def test_client_that_reads_slowly_gets_every_byte_in_order(seed: int) -> None:
    rng = random.Random(seed)
    with connected() as (far, near):
        wanted, got, unsent = bytearray(), bytearray(), b""
        for number in range(60):
            if not unsent:
                size = rng.choice((1, 100, 5000, RECORD_BYTES, RECORD_BYTES + 1, 65536))
                unsent = bytes([number]) * size
                wanted += unsent
            elif rng.random() < 0.2:  # as the hub's last words are, behind what is unsent
                words = bytes([number]) * rng.randint(1, 300)
                unsent += words
                wanted += words
            try:
                unsent = unsent[far.send(memoryview(bytes(unsent))) :]
            except BlockingIOError:
                got += take(near, rng.randint(1, 6000))
        while unsent:
            try:
                unsent = unsent[far.send(unsent) :]
            except BlockingIOError:
                got += take(near)
        while len(got) < len(wanted):
            got += take(near)
        assert got == wanted


def test_what_waits_for_the_client_is_told_as_with_any_socket() -> None:
    with connected() as (far, near):
        with pytest.raises(BlockingIOError):
            far.recv()
        near.send(b"hello")
        arrived(far)
        assert far.recv() == b"hello"
        with pytest.raises(BlockingIOError):
            far.recv()
        assert send_until_full(far, bytes(1000)) > 0
        with pytest.raises(BlockingIOError):
            far.recv()


@pytest.mark.parametrize("in_order", [True, False])
def test_end_of_what_a_client_sends_is_empty(in_order: bool) -> None:
    with connected() as (far, near):
        near.send(b"bye")
        if in_order:
            with pytest.raises(ssl.SSLWantReadError):
                near.unwrap()
        else:
            near.shutdown(socket.SHUT_WR)
        arrived(far)
        assert far.recv() == b"bye"
        arrived(far)
        assert far.recv() == b""


def test_client_that_breaks_tls_has_a_broken_connection() -> None:
    with connected() as (far, near), closing(socket.socket(fileno=near.detach())) as plain:
        plain.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError) as caught:
            far.recv()
    assert not isinstance(caught.value, BlockingIOError)


def test_close_tells_the_client_so_without_waiting_for_it() -> None:
    with connected() as (far, near):
        far.send(b"last words")
        far.close()
        near.settimeout(LIMIT_S)
        assert near.recv(100) == b"last words"
        assert near.recv(100) == b"", "told in order: a ragged end would raise"


def test_close_in_the_middle_of_a_record_looks_like_no_end() -> None:
    with connected() as (far, near):
        send_until_full(far, bytes(1000))
        far.close()
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            read_to_end(near)


def test_connection_that_is_closed_can_be_closed_again() -> None:
    with connected() as (far, _):
        far.close()
        far.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            far.send(b"x")


def test_shutdown_ends_tls_and_then_our_side() -> None:
    with connected() as (far, near):
        far.shutdown(socket.SHUT_WR)
        near.settimeout(LIMIT_S)
        assert near.recv(100) == b""
        with closing(socket.socket(fileno=near.detach())) as plain:
            arrived(plain)
            assert plain.recv(100) == b""


def test_scheme_is_that_of_the_connection() -> None:
    plain, near = plain_pair()
    with closing(plain), closing(near):
        assert scheme_of(plain) == "http"
    with connected() as (far, _):
        assert scheme_of(far) == "https"
