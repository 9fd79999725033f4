"""An issuer of tokens: its keys at an address, over HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Issuer:
    """Answers every request with what it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.status = "200 OK"
        self.headers = ""
        self.body = b"{}"
        self.answers = True
        self._asked = trio.Event()

    def publish(self, *keys: dict[str, object]) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    async def asked(self, times: int) -> None:
        while self.requests < times:
            await self._asked.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            self.requests += 1
            self._asked.set()
            self._asked = trio.Event()
            if not self.answers:
                await trio.sleep_forever()
            head = f"HTTP/1.1 {self.status}\r\n{self.headers}Content-Length: {len(self.body)}\r\n"
            await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + self.body)


@asynccontextmanager
async def serving() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        issuer.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/jwks.json"
        nursery.start_soon(trio.serve_listeners, issuer.serve, [listener])
        yield issuer
        nursery.cancel_scope.cancel()
