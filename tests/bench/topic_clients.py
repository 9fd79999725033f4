"""Many browsers in one process, each with topics of its own: reads what arrives, and forgets it.

`python -m tests.bench.topic_clients PORT` reads queries from its input, one a line, opens a stream
for each, writes `open`, and reads until it is killed.
"""

import resource
import select
import socket
import sys

READ_BYTES = 256 * 1024
HOST = "127.0.0.1"


def opened(port: int, query: str) -> socket.socket:
    """Return a stream that has begun."""
    stream = socket.create_connection((HOST, port))
    stream.sendall(
        f"GET /.well-known/mercure?{query} HTTP/1.1\r\nHost: bench\r\n"
        "Accept: text/event-stream\r\n\r\n".encode()
    )
    head = b""
    while b": ok" not in head and b":\n" not in head:
        received = stream.recv(4096)
        if not received or b"HTTP/1.1 4" in head:
            sys.exit(f"no stream: {head[:300]!r}")
        head += received
    stream.setblocking(False)
    return stream


def main() -> None:
    port = int(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    streams: dict[int, socket.socket] = {}
    poll = select.epoll()
    for line in sys.stdin:
        stream = opened(port, line.strip())
        streams[stream.fileno()] = stream
        poll.register(stream.fileno(), select.EPOLLIN)
    print("open", flush=True)
    buffer = bytearray(READ_BYTES)
    while True:
        for descriptor, _ in poll.poll():
            if not streams[descriptor].recv_into(buffer):
                sys.exit("a stream ended")


if __name__ == "__main__":
    main()
