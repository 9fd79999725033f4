"""Many browsers in one process: opens event streams, with TLS or without, and counts events.

`python -m tests.bench.stream_readers PORT COUNT CA` writes the number of events received so far, by
all of them together, whenever it has grown; CA is a file, or `-` for no TLS.
"""

import select
import socket
import ssl
import sys
from pathlib import Path

from tests.bench.clusters import HOST

READ_BYTES = 256 * 1024
REQUEST = b"GET /.well-known/mercure?topic=* HTTP/1.1\r\nHost: bench\r\n\r\n"


def opened(port: int, context: ssl.SSLContext | None) -> socket.socket:
    """Return a stream that has begun."""
    stream = socket.create_connection((HOST, port))
    if context is not None:
        stream = context.wrap_socket(stream, server_hostname=HOST)
    stream.sendall(REQUEST)
    head = b""
    while b": ok" not in head:
        head += stream.recv(READ_BYTES)
    stream.setblocking(False)
    return stream


def events_on(stream: socket.socket) -> int:
    """Read all that is there; TLS may hold more than the kernel says."""
    count = 0
    while True:
        try:
            received = stream.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return count
        if not received:
            sys.exit("a stream ended")
        count += received.count(b'"user_id":')  # Frames are not split within a line so short.


def main() -> None:
    port, number, ca = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    context = None if ca == "-" else ssl.create_default_context(cafile=Path(ca))
    streams = {stream.fileno(): stream for stream in (opened(port, context) for _ in range(number))}
    poll = select.epoll()
    for descriptor in streams:
        poll.register(descriptor, select.EPOLLIN)
    count = 0
    while True:
        print(count, flush=True)
        arrived = sum(events_on(streams[descriptor]) for descriptor, _ in poll.poll())
        count += arrived


if __name__ == "__main__":
    main()
