"""Servers that are not what a command expects: silent, garbled, endless, of another protocol.

Enters: nothing. Leaves: a port on which one of them listens. Never: a correct answer.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LOCALHOST = "127.0.0.1"


@contextmanager
def listening(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Let `serve` have each connection in a thread of its own, until the event is set."""
    over = threading.Event()
    threads = []
    with socket.create_server((LOCALHOST, 0)) as server:
        server.settimeout(0.05)

        def handle(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.settimeout(0.05)
                serve(connection, over)

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            for thread in (accepting, *threads):
                thread.join()


def _drain(connection: socket.socket, over: threading.Event) -> None:
    """Read and forget."""
    while not over.is_set():
        with suppress(TimeoutError):
            if not connection.recv(65536):
                return


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Take everything, say nothing."""
    _drain(connection, over)


def garbage(connection: socket.socket, over: threading.Event) -> None:
    """Say what is no protocol's."""
    connection.sendall(b"\x00\xff{]garbage\r\n\r\n" * 50)
    _drain(connection, over)


def hangs_up(connection: socket.socket, over: threading.Event) -> None:
    """Hang up at once."""


def endless(connection: socket.socket, over: threading.Event) -> None:
    """Say the same for ever, with a sound beginning."""
    with suppress(TimeoutError):
        connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while not over.is_set():
        with suppress(TimeoutError):
            connection.sendall(b"1," * 32768)


def dripping(connection: socket.socket, over: threading.Event) -> None:
    """Answer a byte at a time, so that each single read is in time."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000:
        if over.wait(0.05):
            return
        connection.sendall(bytes([byte]))


def nats_garbage(connection: socket.socket, over: threading.Event) -> None:
    """Greet as NATS does, and go on with nonsense."""
    connection.sendall(b'INFO {"server_id":1,"headers":"x","max_payload":"?"}\r\n')
    connection.sendall(b"MSG nonsense\r\n+OK\r\nPONG\r\n" * 20)
    _drain(connection, over)


def answering(
    status: str, media_type: str, body: bytes
) -> Callable[[socket.socket, threading.Event], None]:
    """Return who answers each request so, as a web server of others does."""

    def serve(connection: socket.socket, over: threading.Event) -> None:
        request = b""
        while b"\r\n\r\n" not in request and not over.is_set():
            with suppress(TimeoutError):
                if not (received := connection.recv(65536)):
                    return
                request += received
        head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nConnection: close\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        _drain(connection, over)

    return serve


page = answering("200 OK", "text/html", b"<html>welcome</html>")
missing = answering("404 Not Found", "text/plain", b"nothing here")
other_api = answering("400 Bad Request", "application/json", b'{"error": "what?"}')
