"""TLS for tests: a certificate for localhost, what trusts it, and pairs of connected sockets."""

import functools
import os
import select
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import trio

from noti.address import Address
from noti.certificates.context import https_context
from noti.certificates.credentials import CertificateUse, load_credentials
from noti.http.tls_socket import TlsSocket, server_side
from tests.certificates.authority import Issued, Wanted, authority, issue
from tests.http.stage import LIMIT_S


@dataclass
class Fixed:
    """A context that is renewed when a test says so."""

    current: ssl.SSLContext


@dataclass
class Site:
    """A certificate for localhost, and what trusts it."""

    ca: Issued
    tls: Fixed

    def trusting(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.pem.decode())
        context.set_alpn_protocols(list(protocols))
        return context


def new_context(ca: Issued, directory: Path, *names: str) -> ssl.SSLContext:
    paths = issue(Wanted(dns=("localhost", *names)), ca).write(directory, "site")
    return https_context(load_credentials(*paths, use=CertificateUse.HTTPS))


def new_site(directory: Path) -> Site:
    ca = authority()
    return Site(ca, Fixed(new_context(ca, directory)))


@functools.cache
def shared_site() -> Site:
    """Return the site of all tests that do not change it."""
    with tempfile.TemporaryDirectory() as directory:
        return new_site(Path(directory))


def plain_pair(receive_bytes: int = 4096, send_bytes: int = 4096) -> tuple[socket.socket, ...]:
    """Return the server's end and the client's end of a loopback connection, non-blocking."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    far.setblocking(False)
    near.setblocking(False)
    return far, near


def secured_pair(
    pair: tuple[socket.socket, ...] | None = None, context: ssl.SSLContext | None = None
) -> tuple[TlsSocket, ssl.SSLSocket]:
    """Return both ends after the handshake; the client's tells an end out of order."""
    plain_far, plain_near = pair or plain_pair()
    site = shared_site()
    far = server_side(plain_far, site.tls.current)
    near = (context or site.trusting("http/1.1")).wrap_socket(
        plain_near,
        server_hostname="localhost",
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
    )
    server_is_done = client_is_done = False
    while not (server_is_done and client_is_done):
        if not client_is_done:
            with suppress(ssl.SSLWantReadError):
                near.do_handshake()
                client_is_done = True
        if not server_is_done:
            with suppress(BlockingIOError):
                far.shake_hands()
                server_is_done = True
    return far, near


def arrived(sock: socket.socket) -> None:
    """Wait until something came: loopback takes a moment on a busy machine."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    assert poll.poll(LIMIT_S * 1000)


class SecuredEnd:
    """The client's end of a connection over TLS, awaited like a socket of Trio's."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    @classmethod
    async def connected(cls, plain: socket.socket) -> "SecuredEnd":
        """Shake hands on a non-blocking connection."""
        secured = (
            shared_site()
            .trusting("http/1.1")
            .wrap_socket(
                plain,
                server_hostname="localhost",
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        )
        end = cls(secured)
        await end.shake_hands()
        return end

    async def shake_hands(self) -> None:
        """Do the whole handshake."""
        while True:
            try:
                return self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._sock)

    async def recv(self, size: int) -> bytes:
        """Receive; raises `ConnectionResetError` when the end is out of order."""
        while True:
            await trio.lowlevel.checkpoint()
            try:
                return self._sock.recv(size)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._sock)
            except ssl.SSLZeroReturnError:  # both sides have ended in order
                return b""
            except ssl.SSLEOFError as error:
                raise ConnectionResetError("ended out of order") from error

    async def send(self, data: bytes) -> int:
        """Send what there is room for, as there is in tests."""
        await trio.lowlevel.checkpoint()
        return self._sock.send(data)

    def shutdown(self, how: int) -> None:
        """End our side, of TLS and then of TCP."""
        with suppress(OSError):
            self._sock.unwrap()
        plain = socket.socket(fileno=os.dup(self._sock.fileno()))
        with plain:
            plain.shutdown(how)

    def close(self) -> None:
        """Close at once."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


_SECURED: ContextVar[bool] = ContextVar("secured", default=False)


@contextmanager
def secured(whether: bool) -> Iterator[None]:
    """Let a test be about connections over TLS, or not."""
    token = _SECURED.set(whether)
    yield
    _SECURED.reset(token)


def tls_in_use() -> Fixed | None:
    """Return the server's TLS, if this test is about that."""
    return shared_site().tls if _SECURED.get() else None


async def opened(address: Address) -> trio.abc.Stream:
    """Connect, with TLS if this test is about that."""
    stream = await trio.open_tcp_stream(*address)
    if not _SECURED.get():
        return stream
    context = shared_site().trusting("http/1.1")
    over_tls = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(LIMIT_S):
        await over_tls.do_handshake()
    return over_tls
