"""Many browsers in one process: reads what arrives on every socket, and forgets it.

`python -m tests.bench.readers HOST PORT COUNT` connects and reads until it is killed.
"""

import resource
import select
import socket
import sys

READ_BYTES = 256 * 1024


def main() -> None:
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets: dict[int, socket.socket] = {}
    poll = select.epoll()
    for _ in range(count):
        sock = socket.create_connection((host, port))
        sock.setblocking(False)
        sockets[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    buffer = bytearray(READ_BYTES)
    while sockets:
        for descriptor, _ in poll.poll():
            try:
                received = sockets[descriptor].recv_into(buffer)
            except BlockingIOError:
                continue
            except ConnectionError:
                received = 0
            if not received:
                poll.unregister(descriptor)
                sockets.pop(descriptor).close()


if __name__ == "__main__":
    main()
