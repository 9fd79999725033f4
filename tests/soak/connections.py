"""One connection of the browsers' process: a non-blocking socket, with TLS perhaps.

Never: a wait; an error other than `Ended`.
"""

import contextlib
import errno
import os
import select
import socket
import ssl

from noti.errors import RemoteError
from tests.soak.conversations import Conversation

READ_BYTES = 256 * 1024
"""At one turn."""
RECEIVE_BYTES = 64 * 1024
IDLE_RECEIVE_BYTES = 4096
"""What the kernel keeps for a browser that never reads."""
HOST = "localhost"
"""The name in all certificates."""
_OVER = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Ended(RemoteError):
    """The connection ended or broke."""


class Connection:
    """A conversation with a node; registered in an epoll object of its owner."""

    def __init__(
        self,
        node: int,
        address: tuple[str, int],
        conversation: Conversation,
        context: ssl.SSLContext | None,
        *,
        idle: bool,
    ) -> None:
        """Begin to connect; raises `Ended` when that is refused at once."""
        self.node = node
        self.conversation = conversation
        self.has_tls = context is not None
        self.established = False
        """Whether what is asked for can be sent."""
        self.idle = idle
        """Whether it is not read once everything is asked for."""
        self._context = context
        self._connected = False
        self._wants_to_write = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if idle:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, IDLE_RECEIVE_BYTES)
        problem = self._socket.connect_ex(address)
        if problem not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise Ended(os.strerror(problem))

    def fileno(self) -> int:
        """For epoll; -1 when closed."""
        return self._socket.fileno()

    @property
    def interest(self) -> int:
        """What to wait for now."""
        if not self._connected:
            return select.EPOLLOUT
        if self.idle and self.established and not self.conversation.outgoing:
            return select.EPOLLRDHUP
        wanted = select.EPOLLIN | select.EPOLLRDHUP
        waits = self._wants_to_write or (self.established and self.conversation.outgoing)
        return wanted | select.EPOLLOUT if waits else wanted

    def turn(self, events: int) -> bytes:
        """Do what can be done, and return what was received. Raises `Ended`.

        What came before the end is returned first.
        """
        try:
            self._establish()
            self._flush()
            if self.idle and not self.conversation.outgoing:
                if events & _OVER:
                    raise Ended("while nobody read")
                return b""
            return self._receive()
        except (ssl.SSLWantReadError, BlockingIOError):
            self._wants_to_write = False  # what is left to send is in `interest`
        except ssl.SSLWantWriteError:
            self._wants_to_write = True
        except OSError as error:
            raise Ended(str(error)) from error
        return b""

    def flush(self) -> None:
        """Send what can be sent now, if it can be asked for anything already. Raises `Ended`."""
        if not self.established:
            return
        try:
            self._flush()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            self._wants_to_write = True
        except OSError as error:
            raise Ended(str(error)) from error

    def _establish(self) -> None:
        if not self._connected:
            if problem := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(problem, os.strerror(problem))
            self._connected = True
            if self._context is not None:
                self._socket = self._context.wrap_socket(
                    self._socket,
                    server_hostname=HOST,
                    do_handshake_on_connect=False,
                    suppress_ragged_eofs=False,
                )
        if self.established:
            return
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.do_handshake()
            agreed = self._socket.selected_alpn_protocol()
            if agreed != self.conversation.protocol:
                raise OSError(f"the node agreed to {agreed}")
        self.established = True

    def _flush(self) -> None:
        outgoing = self.conversation.outgoing
        while outgoing:
            sent = self._socket.send(outgoing)
            del outgoing[:sent]
        self._wants_to_write = False

    def _receive(self) -> bytes:
        """Return all that is there, up to a bound; nothing of TLS may stay where epoll sees it
        not."""
        received: list[bytes] = []
        size = 0
        while size < READ_BYTES or (
            isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        ):
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except (ssl.SSLWantReadError, BlockingIOError):
                break
            except OSError:
                if not received:
                    raise
                break
            if not data:
                if not received:
                    raise Ended("in order")
                break
            received.append(data)
            size += len(data)
        return b"".join(received)

    def close(self) -> None:
        """Close at once, with what can still be said."""
        if self.established:
            with contextlib.suppress(OSError):
                self._flush()
        self._socket.close()


def trusting(ca_pem: str, protocol: str) -> ssl.SSLContext:
    """Return what trusts a CA, and speaks one protocol."""
    context = ssl.create_default_context(cadata=ca_pem)
    context.set_alpn_protocols([protocol])
    return context
