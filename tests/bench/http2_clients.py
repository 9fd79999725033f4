"""Many streams over few HTTP/2 connections in one process: reads what arrives, and forgets it.

`python -m tests.bench.http2_clients PORT CONNECTIONS STREAMS CA` opens so many streams on each of
so many connections, writes `open`, and reads until it is killed. It never lets a window close.
With 0 streams, each connection is one stream over HTTPS/1.1.
"""

import select
import socket
import ssl
import struct
import sys
from pathlib import Path
from typing import Final

import hpack

HOST: Final = "127.0.0.1"
READ_BYTES: Final = 1024 * 1024
WINDOW: Final = 2**31 - 1
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, WINDOW_UPDATE = 4, 1, 8
INITIAL_WINDOW_SIZE: Final = 4
END_OF_HEAD_AND_STREAM: Final = 5
PATH: Final = "/.well-known/mercure?topic=*"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening(streams: int) -> bytes:
    """Return all that a client says: windows that never close, and its requests."""
    said = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW))
    said += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65_535))
    for number in range(streams):
        # By an encoder of its own: so it refers to nothing in another one.
        head = hpack.Encoder().encode(
            [(":method", "GET"), (":scheme", "https"), (":authority", "bench"), (":path", PATH)]
        )
        said += frame(HEADERS, END_OF_HEAD_AND_STREAM, 1 + 2 * number, head)
    return said


def opened(port: int, streams: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection on which all streams have begun."""
    sock = context.wrap_socket(socket.create_connection((HOST, port)), server_hostname=HOST)
    if streams:
        assert sock.selected_alpn_protocol() == "h2"
        sock.sendall(opening(streams))
    else:
        sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    received = b""
    while received.count(b": ok") < max(1, streams):
        data = sock.recv(READ_BYTES)
        if not data:
            sys.exit(f"no stream: {received[-300:]!r}")
        received += data
    sock.setblocking(False)
    return sock


def main() -> None:
    port, connections, streams = map(int, sys.argv[1:4])
    context = ssl.create_default_context(cafile=Path(sys.argv[4]))
    context.set_alpn_protocols(["h2" if streams else "http/1.1"])
    sockets: dict[int, ssl.SSLSocket] = {}
    poll = select.epoll()
    for _ in range(connections):
        sock = opened(port, streams, context)
        sockets[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    print("open", flush=True)
    buffer = bytearray(READ_BYTES)
    while True:
        for descriptor, _ in poll.poll():
            try:
                while sockets[descriptor].recv_into(buffer):
                    pass
            except ssl.SSLWantReadError:
                continue
            sys.exit("a connection ended")


if __name__ == "__main__":
    main()
