"""Asks the node that runs with a data directory, over the Unix socket that is there. Blocks.

What is sent and answered is described in `control.py`.
"""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from noti.errors import DecommissionRejected, LocalError, NotiError, Unavailable
from noti.membership.control_protocol import LINE_BYTES_MAX, short_path

CONNECT_WITHIN_S: Final = 5.0
"""The kernel connects at once, unless many wait for a node that stands still."""
ANSWER_GRACE_S: Final = 2.0
"""A busy node answers a little later than it was asked to."""


class ControlClient:
    """A connection to a node of this machine, for the time of a `with`."""

    def __init__(self, directory: Path) -> None:
        """Connect to the node that runs in `directory`.

        Raises `LocalError` when none does or it is another user's, `Unavailable` when it does not
        listen.
        """
        self._directory = directory
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(CONNECT_WITHIN_S)
            with self._errors_explained(CONNECT_WITHIN_S), short_path(directory) as path:
                self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(
        self,
        request: Mapping[str, object],
        within_s: float,
        *,
        rejection: type[NotiError] = LocalError,
    ) -> Iterator[dict[str, Any]]:
        """Send a request and yield its answers; each may take `within_s` seconds and some grace.

        Raises `rejection` when the request is too long, or with the node's reason when it does
        not do that, and `Unavailable` when it says nothing or stops.
        """
        line_sent = json.dumps(request).encode() + b"\n"
        if len(line_sent) > LINE_BYTES_MAX:
            raise rejection(
                f"the request takes {len(line_sent)} bytes and a node takes {LINE_BYTES_MAX}: "
                "make it shorter"
            )
        patience_s = within_s + ANSWER_GRACE_S
        with self._errors_explained(patience_s):
            self._socket.settimeout(patience_s)
            self._socket.sendall(line_sent)
        while True:
            with self._errors_explained(patience_s):
                line = self._line(time.monotonic() + patience_s)
                if line is not None and not _is_answer(line):
                    raise ValueError("no answer")
            match line:
                case {"answer": dict(answer)}:
                    yield answer
                case {"error": str(reason)}:
                    raise rejection(reason)
                case None:
                    raise Unavailable(f"the node in {self._directory} stopped before it was done")
                case _:
                    return

    def _line(self, until: float) -> Any:
        """Return the next line's JSON, or None when the other side ended without one.

        Raises `TimeoutError` and `ValueError`.
        """
        while b"\n" not in self._received:
            if len(self._received) > LINE_BYTES_MAX:
                raise ValueError("no line")
            if (left_s := until - time.monotonic()) <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            received = self._socket.recv(LINE_BYTES_MAX)
            if not received:
                return None
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    @contextmanager
    def _errors_explained(self, patience_s: float) -> Iterator[None]:
        directory = self._directory
        try:
            yield
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
                reason = f"no answer within {patience_s:g} s; try again, or longer"
            raise Unavailable(f"the node in {directory} does not answer: {reason}") from None
        except ValueError:
            raise Unavailable(f"what answers in {directory} is no node of this version") from None


def _is_answer(line: object) -> bool:
    match line:
        case {"answer": dict()} | {"error": str()}:
            return True
        case _:
            return line == {}


def ask_to_leave(directory: Path, within_s: float) -> None:
    """Have the node that runs in `directory` decommissioned.

    Raises `LocalError` when no node runs there, `DecommissionRejected` with the node's reason, and
    `Unavailable` when it says nothing.
    """
    with ControlClient(directory) as node:
        request = {"leave_within_s": float(within_s)}
        for _ in node.ask(request, within_s, rejection=DecommissionRejected):
            pass


def live_voters(directory: Path, within_s: float) -> list[str]:
    """Return the names of the voters that the node in `directory` does not hold for dead.

    Raises as `ask_to_leave` does.
    """
    with ControlClient(directory) as node:
        return [str(one["name"]) for one in node.ask({"request": "voters"}, within_s)]
