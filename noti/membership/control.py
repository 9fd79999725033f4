"""A Unix socket in the data directory, for the operator of this machine: the node's side.

A connection carries requests, one after the other, each a line of JSON. The answer to each is lines
of JSON: `{"answer": {…}}`, as many as there are and as soon as they are known, and at the end `{}`,
or `{"error": "why not"}`. The file has mode 0600, so the kernel admits only the node's own user and
root, without a port or a secret; it cannot be reached over the network. A directory whose file
system has no sockets costs the commands, not the node.
"""

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import structlog
import trio

from noti import listening
from noti.descriptors import CONTROL_CONNECTIONS_MAX
from noti.errors import NotiError
from noti.membership.control_protocol import LINE_BYTES_MAX, SOCKET_NAME, short_path
from noti.membership.ports import CarryOut

log = structlog.get_logger("noti.node")

REQUEST_WITHIN_S = 5.0
"""A client sends its request as soon as it is connected, or has the answer to the one before."""

NO_REQUEST = "not a request that this version knows"


class ControlSocket:
    """The node's side."""

    def __init__(self, directory: Path) -> None:
        """Prepare; nothing listens before `serve`. The directory must be locked for this node."""
        self._directory = directory

    async def serve(
        self,
        carry_out: CarryOut,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Control`. When this is cancelled, clients that wait for an answer are cut off."""
        try:
            listener = self._listen()
        except OSError as error:
            log.warning(
                "no control socket: commands like `noti leave` cannot reach this node",
                directory=str(self._directory),
                reason=error.strerror,
            )
            task_status.started()
            await trio.sleep_forever()

        async def handle(stream: trio.SocketStream) -> None:
            async with stream:
                await _serve_client(stream, carry_out)

        try:
            with listener:
                async with trio.open_nursery() as handlers:
                    task_status.started()
                    await listening.serve(
                        listener,
                        handle,
                        handlers,
                        listener="control",
                        connections_max=CONTROL_CONNECTIONS_MAX,
                    )
        finally:
            (self._directory / SOCKET_NAME).unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        (self._directory / SOCKET_NAME).unlink(missing_ok=True)  # of a process that was killed
        bound = socket.socket(socket.AF_UNIX)
        try:
            with short_path(self._directory) as path:
                bound.bind(path)
            # Nobody can connect before `listen`, so there is no moment with other permissions.
            (self._directory / SOCKET_NAME).chmod(0o600)
            bound.listen()
        except BaseException:
            bound.close()
            raise
        return bound


class _ClientGone(Exception):
    """The client reads no more, so that it needs no answer."""


async def _serve_client(stream: trio.SocketStream, carry_out: CarryOut) -> None:
    """Carry out one request after the other, until the client has none."""

    async def tell(answer: Mapping[str, object]) -> None:
        await _send(stream, {"answer": answer})

    lines = _RequestLines(stream)
    try:
        while True:
            try:
                with trio.fail_after(REQUEST_WITHIN_S):
                    line = await lines.next()
                if line is None:
                    return
                request = _decoded(line)
            except (trio.TooSlowError, ValueError, RecursionError):
                await _send(stream, {"error": NO_REQUEST})
                return
            try:
                await carry_out(request, tell)
            except NotiError as error:
                await _send(stream, {"error": str(error)})
            else:
                await _send(stream, {})
    except (_ClientGone, trio.BrokenResourceError):
        log.debug("the client has gone")


async def _send(stream: trio.SocketStream, line: Mapping[str, object]) -> None:
    with trio.move_on_after(REQUEST_WITHIN_S):
        try:
            await stream.send_all(json.dumps(line).encode() + b"\n")
        except trio.BrokenResourceError:
            raise _ClientGone from None
        return
    raise _ClientGone


def _decoded(line: bytes) -> object:
    """Return a request; raises `ValueError` and `RecursionError` when it is no JSON, or no text."""
    request: object = json.loads(line)
    json.dumps(request, ensure_ascii=False).encode()  # half a surrogate pair could not be sent on
    return request


class _RequestLines:
    """The lines that a client sends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def next(self) -> bytes | None:
        """Return the next line, None after the last; raises `ValueError` when it never ends."""
        while b"\n" not in self._received:
            received = await self._stream.receive_some(LINE_BYTES_MAX)
            if not received and not self._received:
                return None
            self._received += received
            if not received or len(self._received) > LINE_BYTES_MAX:
                raise ValueError("no line")
        line, _, self._received = self._received.partition(b"\n")
        return line
