"""The processes beside `bench_bridge`: a plain program that reads a stream, and browsers.

`python -m tests.bench.bridge_processes consume URL STREAM PROGRESS` fetches and acknowledges as
nats-py's documentation does. `… browse PORTS COUNT PROGRESS` opens so many event streams, in turns
at these ports. Both write how far they are to the file PROGRESS, until they are killed.
"""

import asyncio
import mmap
import re
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

HOST: Final = "127.0.0.1"
REQUEST: Final = b"GET /.well-known/mercure?topic=* HTTP/1.1\r\nHost: bench\r\n\r\n"

EVENT: Final = b"\ndata: "
"""Begins the data of an event in a stream."""
LAST: Final = re.compile(rb"the last of round (\d{3})")
"""In the payload of an event before which all others were published."""

FETCH_MESSAGES: Final = 500
FETCH_S: Final = 1.0

PAUSE_S: Final = 0.005
"""Between two looks of the browsers, so that they take little of the machine: what came meanwhile
is read at once."""
READ_BYTES: Final = 1024 * 1024
TAIL_BYTES: Final = 1024
"""At the end of what a browser has read: more than one event of 200 bytes."""

_PROGRESS: Final = struct.Struct("=qq")


class Progress(NamedTuple):
    """How far a reader is."""

    events: int
    """That all have which count."""
    last: int
    """Number of the last round whose last event all have read."""


class ProgressFile:
    """Memory that one process writes and another one reads."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def write(self, progress: Progress) -> None:
        """Replace what is there."""
        _PROGRESS.pack_into(self._memory, 0, *progress)

    def read(self) -> Progress:
        """Return what was written last."""
        return Progress(*_PROGRESS.unpack_from(self._memory))


def main() -> None:
    role, *arguments = sys.argv[1:]
    if role == "consume":
        url, stream, progress = arguments
        asyncio.run(consume(url, stream, ProgressFile(Path(progress))))
    else:
        ports, count, progress = arguments
        browse([int(port) for port in ports.split(",")], int(count), ProgressFile(Path(progress)))


async def consume(url: str, stream: str, progress: ProgressFile) -> None:
    """Read with nats-py alone: a durable consumer, fetch, ack each."""
    import nats  # here, so that browsers start at once
    from nats.errors import TimeoutError as NoneInTime

    client = await nats.connect(url)
    pull = await client.jetstream().pull_subscribe(f"{stream}.>", "plain", stream=stream)
    events = last = 0
    while True:
        try:
            messages = await pull.fetch(FETCH_MESSAGES, timeout=FETCH_S)
        except NoneInTime:
            continue
        for message in messages:
            await message.ack()
        events += len(messages)
        if found := LAST.search(messages[-1].data):
            last = int(found[1])
        progress.write(Progress(events, last))


class _Browser:
    """One event stream."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port))
        self.sock.sendall(REQUEST)
        self.tail = b""
        while b": ok" not in self.tail:
            self.tail += self.sock.recv(1)
        self.sock.setblocking(False)
        self.events = 0
        self.last = 0

    def read(self, buffer: bytearray, *, counts: bool) -> None:
        """Read what is there; only one of a node counts all events, as that is dear."""
        try:
            received = self.sock.recv_into(buffer)
        except BlockingIOError:
            return
        if not received:
            sys.exit("a node ended a stream")
        if counts:
            # What was cut in two is counted when its second part comes.
            seam = self.tail[-len(EVENT) + 1 :] + buffer[: min(received, len(EVENT) - 1)]
            self.events += seam.count(EVENT) + buffer.count(EVENT, 0, received)
        self.tail = (self.tail + buffer[max(0, received - TAIL_BYTES) : received])[-TAIL_BYTES:]
        if found := LAST.search(self.tail):
            self.last = int(found[1])


def browse(ports: list[int], count: int, progress: ProgressFile) -> None:
    """Follow the nodes."""
    browsers = [_Browser(ports[number % len(ports)]) for number in range(count)]
    counting = browsers[: len(ports)]
    by_descriptor = {browser.sock.fileno(): browser for browser in browsers}
    buffer = bytearray(READ_BYTES)
    with select.epoll() as poll:
        for descriptor in by_descriptor:
            poll.register(descriptor, select.EPOLLIN)
        progress.write(Progress(0, 0))
        while True:
            for descriptor, _ in poll.poll():
                browser = by_descriptor[descriptor]
                browser.read(buffer, counts=browser in counting)
            progress.write(
                Progress(
                    min(browser.events for browser in counting),
                    min(browser.last for browser in browsers),
                )
            )
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
