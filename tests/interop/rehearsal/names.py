"""DNS of the rehearsal: the names that Kubernetes gives to services and pods, over UDP."""

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from noti.address import Address

TYPE_A, CLASS_IN = 1, 1
NO_ERROR, FORMAT_ERROR, NO_SUCH_NAME = 0, 1, 3
ANSWER, RECURSION = 0x8400, 0x0080
"""Flags: an answer with authority; that recursion is available, as resolvers like to hear."""
TTL_S = 5
_HEADER = struct.Struct("!6H")
_POINTER_TO_QUESTION = 0xC00C


@dataclass(frozen=True)
class Question:
    """What a resolver asks."""

    number: int
    flags: int
    name: str
    """Lower case, without the dot at the end."""
    kind: int
    text: bytes
    """Name, type and class as they came."""


def parse(packet: bytes) -> Question:
    """Return the question of a packet; raises `ValueError` when it is none."""
    if len(packet) < _HEADER.size:
        raise ValueError("too short")
    number, flags, questions, *_ = _HEADER.unpack_from(packet)
    if questions != 1:
        raise ValueError("not one question")
    labels, at = [], _HEADER.size
    while at < len(packet) and packet[at]:
        length = packet[at]
        labels.append(packet[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    end = at + 5
    if end > len(packet):
        raise ValueError("a question that ends early")
    kind, _ = struct.unpack_from("!2H", packet, at + 1)
    return Question(number, flags, ".".join(labels).lower(), kind, packet[_HEADER.size : end])


def reply(question: Question, addresses: Sequence[str] | None) -> bytes:
    """Return the answer; None says that there is no such name."""
    code = NO_SUCH_NAME if addresses is None else NO_ERROR
    found = addresses if addresses and question.kind == TYPE_A else []
    flags = ANSWER | RECURSION | (question.flags & 0x0100) | code
    records = b"".join(
        struct.pack("!3HIH4s", _POINTER_TO_QUESTION, TYPE_A, CLASS_IN, TTL_S, 4, packed)
        for packed in map(socket.inet_aton, found)
    )
    return _HEADER.pack(question.number, flags, 1, len(found), 0, 0) + question.text + records


async def serve(
    bind: Address,
    look_up: Callable[[str], Sequence[str] | None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled; `look_up` returns a name's addresses, None for an unknown name."""
    udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with udp:
        await udp.bind(bind)
        task_status.started()
        while True:
            packet, source = await udp.recvfrom(512)
            try:
                question = parse(packet)
            except ValueError:
                continue
            await udp.sendto(reply(question, look_up(question.name)), source)
