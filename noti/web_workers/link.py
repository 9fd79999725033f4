"""The socket between a node and one of its web workers, as either side has it."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import trio

from noti.errors import WorkerLost
from noti.web_workers.messages import Decoder, Message, encode

RECEIVE_BYTES: Final = 256 * 1024
JOINED_BYTES: Final = 256 * 1024
"""What waits is sent in pieces of so much, or one message."""


class Link:
    """Sends without waiting, and receives."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._outbox: deque[bytes | Iterator[bytes]] = deque()
        self._work = trio.Event()
        self.waiting_bytes = 0
        """Of what the other side has not taken yet."""

    def send(self, message: Message) -> None:
        """Have a message sent, in the order of the calls; never waits."""
        self.send_encoded(encode(message))

    def send_encoded(self, data: bytes) -> None:
        """The same with what `encode` returned."""
        self._outbox.append(data)
        self.waiting_bytes += len(data)
        self._work.set()

    def send_each(self, encoded: Iterator[bytes]) -> None:
        """Have messages sent that are made one by one, when there is room for the next one."""
        self._outbox.append(encoded)
        self._work.set()

    async def run(self, take: Callable[[Message], None]) -> None:
        """Send and receive until the other side is gone; `take` gets each message, and never waits.

        Raises `WorkerLost` then. *Cancellation*: what was not sent is lost.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_sending)
            decoder = Decoder()
            try:
                while data := await self._stream.receive_some(RECEIVE_BYTES):
                    for message in decoder.feed(bytes(data)):
                        take(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            raise WorkerLost("the other side of a web worker's socket is gone")

    async def _keep_sending(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._outbox:
                head = self._outbox[0]
                if isinstance(head, bytes):
                    await self._send_joined()
                    continue
                for data in head:
                    await self._send(data)
                self._outbox.popleft()

    async def _send_joined(self) -> None:
        parts, size_bytes = [], 0
        while self._outbox and size_bytes < JOINED_BYTES:
            head = self._outbox[0]
            if not isinstance(head, bytes):
                break
            parts.append(head)
            size_bytes += len(head)
            self._outbox.popleft()
        await self._send(parts[0] if len(parts) == 1 else b"".join(parts))
        self.waiting_bytes -= size_bytes

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise WorkerLost("the other side of a web worker's socket is gone") from None
