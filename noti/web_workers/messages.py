"""What a node and a web worker say to each other, and its bytes.

Enters: messages; bytes of the other side, cut anywhere. Leaves: bytes; messages.
Never: I/O; bytes of anybody but the two processes of one program.

A message is a length (four bytes, little-endian) and a msgpack array: its kind, and its fields.
"""

import struct
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from noti.errors import MessageInvalid

_LENGTH: Final = struct.Struct("<I")

MESSAGE_BYTES_MAX: Final = 256 * 1024 * 1024
"""More than any of them takes: a command is 8 MiB at most, and what waits of them is bounded."""


class Start(NamedTuple):
    """The first message of a node."""

    config: bytes
    """The node's settings, pickled: both are the same program, and secrets stay in memory."""
    number: int
    """Which of the node's workers this is, from 1 on."""
    workers: int
    """How many it has."""
    node_id: str


class StatePiece(NamedTuple):
    """A piece of the store's state, of which there are several; then comes `StateEnd`."""

    piece: bytes


class StateEnd(NamedTuple):
    """The state is complete: it replaces what there was."""


class Applied(NamedTuple):
    """Commands that the node has applied, in order."""

    commands: list[bytes]
    log_indexes: list[int]
    """Where each of them is in the log."""


class NodeState(NamedTuple):
    """How the node is; sent when that changes."""

    ready: bool
    leads: bool


class Settings(NamedTuple):
    """Go by other settings from now on."""

    config: bytes
    """The node's `Config`, pickled, as at the start."""


class Allowance(NamedTuple):
    """How many streams this worker may have."""

    streams: int


class Counts(NamedTuple):
    """How many of a kind some clients have: where the sender stands for, a worker or all others."""

    kind: str
    """One of `shared_limits.KINDS`."""
    by_client: dict[str, int]
    """By the key that stands for a client; those that are not named have what they had."""


class Answered(NamedTuple):
    """What became of a `Submit`, a `Read` or a `WaitNews`."""

    number: int
    log_index: int
    """Of the command."""
    error: str
    """The name of the error's class; empty for none."""
    problem: str


class Page(NamedTuple):
    """The answer to an `Ask`."""

    number: int
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Measure(NamedTuple):
    """Say what is measured."""

    number: int


class Find(NamedTuple):
    """Say what is known of an event's id."""

    number: int
    event_id: str
    seqs: list[int]
    """The numbers of the events with this id that history holds."""


class Drain(NamedTuple):
    """Take no more connections, end the streams in order, and end."""


class Listening(NamedTuple):
    """The worker takes connections."""


class Submit(NamedTuple):
    """Have a command committed."""

    number: int
    command: bytes


class Read(NamedTuple):
    """Say when everything is applied that was committed before."""

    number: int


class WaitNews(NamedTuple):
    """Say when there may be another leader."""

    number: int


class Ask(NamedTuple):
    """Answer a probe."""

    number: int
    path: str
    query: str


class Measured(NamedTuple):
    """The answer to `Measure`."""

    number: int
    families: list[Any]
    """Of `merging.Family`."""


class Found(NamedTuple):
    """The answer to `Find`."""

    number: int
    sent: list[Any]
    """Of `noti.tracing.lookup.SentEvent`."""
    refused: list[Any]
    """Of `noti.tracing.refusals.Refusal`."""


class Heartbeat(NamedTuple):
    """Sent several times a second, by a worker whose loop runs."""

    clients: int
    pressure: float
    allowance: int
    """By which it goes."""


NodeMessage: TypeAlias = (
    Start
    | StatePiece
    | StateEnd
    | Applied
    | NodeState
    | Settings
    | Allowance
    | Counts
    | Answered
    | Page
    | Measure
    | Find
    | Drain
)
WorkerMessage: TypeAlias = (
    Listening | Submit | Read | WaitNews | Ask | Counts | Measured | Found | Heartbeat
)
Message: TypeAlias = NodeMessage | WorkerMessage

_KINDS: Final[tuple[type[Any], ...]] = (
    Start,
    StatePiece,
    StateEnd,
    Applied,
    NodeState,
    Settings,
    Allowance,
    Counts,
    Answered,
    Page,
    Measure,
    Find,
    Drain,
    Listening,
    Submit,
    Read,
    WaitNews,
    Ask,
    Measured,
    Found,
    Heartbeat,
)
_NUMBERS: Final = {kind: number for number, kind in enumerate(_KINDS)}


def encode(message: Message) -> bytes:
    """Return a message's bytes."""
    body = msgpack.packb((_NUMBERS[type(message)], *message))
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Reads messages of bytes that come in any pieces."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take what follows; return the messages that are complete. Raises `MessageInvalid`."""
        self._received += data
        messages: list[Message] = []
        at = 0
        while len(self._received) >= at + _LENGTH.size:
            (size_bytes,) = _LENGTH.unpack_from(self._received, at)
            if size_bytes > MESSAGE_BYTES_MAX:
                raise MessageInvalid(f"a message of {size_bytes} bytes between node and worker")
            end = at + _LENGTH.size + size_bytes
            if len(self._received) < end:
                break
            messages.append(_decode(bytes(self._received[at + _LENGTH.size : end])))
            at = end
        del self._received[:at]
        return messages


def _decode(body: bytes) -> Message:
    try:
        number, *fields = msgpack.unpackb(body)
        message: Message = _KINDS[number](*fields)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise MessageInvalid(f"no message between node and worker: {error}") from None
    return message
