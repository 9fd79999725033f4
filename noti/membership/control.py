"""A Unix socket in the data directory, for the operator of this machine: node and command line.

A connection carries one request and one answer, each a line of JSON. The file has mode 0600, so the
kernel admits only the node's own user and root, without a port or a secret; it cannot be reached
over the network. A directory whose file system has no sockets costs the commands, not
the node.
"""

import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
import trio

from noti import listening
from noti.descriptors import CONTROL_CONNECTIONS_MAX
from noti.errors import DecommissionRejected, LocalError, NotiError, Unavailable

log = structlog.get_logger("noti.node")

SOCKET_NAME = "control.sock"
LINE_BYTES_MAX = 4096
REQUEST_WITHIN_S = 5.0
"""A client sends its request as soon as it is connected."""
WITHIN_S_MAX = 3600.0
ANSWER_GRACE_S = 2.0
"""A busy node answers a little later than it was asked to."""


class ControlSocket:
    """The node's side."""

    def __init__(self, directory: Path) -> None:
        """Prepare; nothing listens before `serve`. The directory must be locked for this node."""
        self._directory = directory

    async def serve(
        self,
        leave: Callable[[float], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `Control`. When this is cancelled, clients that wait for an answer are cut off."""
        try:
            listener = self._listen()
        except OSError as error:
            log.warning(
                "no control socket: `noti leave` cannot reach this node",
                directory=str(self._directory),
                reason=error.strerror,
            )
            task_status.started()
            await trio.sleep_forever()

        async def handle(stream: trio.SocketStream) -> None:
            async with stream:
                await _answer(stream, leave)

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
            with _short_path(self._directory) as path:
                bound.bind(path)
            # Nobody can connect before `listen`, so there is no moment with other permissions.
            (self._directory / SOCKET_NAME).chmod(0o600)
            bound.listen()
        except BaseException:
            bound.close()
            raise
        return bound


async def _answer(stream: trio.SocketStream, leave: Callable[[float], Awaitable[None]]) -> None:
    """Take one request and answer it; a client that has gone meanwhile needs no answer."""
    try:
        with trio.fail_after(REQUEST_WITHIN_S):
            request = _parse(await _line(stream))
    except (trio.TooSlowError, trio.BrokenResourceError, ValueError):
        answer: dict[str, object] = {"error": "not a request that this version knows"}
    else:
        try:
            await leave(request)
            answer = {}
        except NotiError as error:
            answer = {"error": str(error)}
    try:
        with trio.move_on_after(REQUEST_WITHIN_S):
            await stream.send_all(json.dumps(answer).encode() + b"\n")
    except trio.BrokenResourceError:
        log.debug("the client has gone")


async def _line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        received = await stream.receive_some(LINE_BYTES_MAX)
        line += received
        if not received or len(line) > LINE_BYTES_MAX:
            raise ValueError("no line")
    return line


def _parse(line: bytes) -> float:
    """Return the seconds of a request to leave; raises `ValueError` for anything else."""
    match json.loads(line):
        case {"leave_within_s": float() as seconds} if 0 <= seconds <= WITHIN_S_MAX:
            return seconds
        case _:
            raise ValueError("not a request")


def ask_to_leave(directory: Path, within_s: float) -> None:
    """Have the node that runs in `directory` decommissioned. Blocks.

    Raises `LocalError` when no node runs there, `DecommissionRejected` with the node's reason, and
    `Unavailable` when it says nothing.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(within_s + ANSWER_GRACE_S)
        try:
            with _short_path(directory) as path:
                connection.connect(path)
            connection.sendall(json.dumps({"leave_within_s": float(within_s)}).encode() + b"\n")
            answer = _received(connection, time.monotonic() + within_s + ANSWER_GRACE_S)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise LocalError(
                f"no node runs with the data directory {directory}; see --data-dir"
            ) from None
        except PermissionError:
            raise LocalError(
                f"the node in {directory} belongs to another user; run this as that user"
            ) from None
        except OSError as error:
            reason = str(error)
            if isinstance(error, TimeoutError):
                reason = f"no answer within {within_s + ANSWER_GRACE_S:g} s; try again, or longer"
            raise Unavailable(f"the node in {directory} does not answer: {reason}") from None
        except ValueError:
            raise Unavailable(f"what answers in {directory} is no node of this version") from None
    match answer:
        case {"error": str(reason)}:
            raise DecommissionRejected(reason)
        case None:
            raise Unavailable(f"the node in {directory} stopped before it had left the voters")
        case _:
            pass


def _received(connection: socket.socket, until: float) -> Any:
    """Return the answer, or None when the other side ended without one.

    Raises `TimeoutError` and `ValueError`.
    """
    data = b""
    while not data.endswith(b"\n") and len(data) <= LINE_BYTES_MAX:
        if (left_s := until - time.monotonic()) <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        received = connection.recv(LINE_BYTES_MAX)
        if not received:
            return None
        data += received
    return json.loads(data)


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """Yield a path of the socket that fits into the 108 bytes of an address, however long it is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
