"""HTTP servers that answer as they are told."""

import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from tests.http.stage import LIMIT_S


class Script:
    """A server that answers one connection after the other as it is told, and notes requests."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.requests: list[str] = []
        self._answers = list(answers)

    async def serve(self, connection: trio.abc.Stream) -> None:
        async with connection:
            request = b""
            try:
                while not _is_whole(request):
                    received = await connection.receive_some()
                    if not received:
                        return
                    request += received
                self.requests.append(request.decode())
                answer = self._answers.pop(0)
                await connection.send_all(answer)
                if b"chunked" in answer:  # such a one stays open
                    await connection.receive_some()
            except trio.BrokenResourceError:
                return


def _is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[Script, str]]:
    script = Script(answers)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, script.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(LIMIT_S):
            yield script, f"http://127.0.0.1:{port}/events"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def over_tls(script: Script, context: ssl.SSLContext) -> AsyncIterator[str]:
    async def serve(connection: trio.SocketStream) -> None:
        secure = trio.SSLStream(connection, context, server_side=True, https_compatible=True)
        try:
            await script.serve(secure)
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()
