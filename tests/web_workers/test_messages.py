"""Promises of what a node and its web workers say to each other."""

import random

import pytest

from noti.errors import MessageInvalid
from noti.web_workers.messages import (
    MESSAGE_BYTES_MAX,
    Allowance,
    Answered,
    Applied,
    Ask,
    Counts,
    Decoder,
    Drain,
    Find,
    Found,
    Heartbeat,
    Listening,
    Measure,
    Measured,
    Message,
    NodeState,
    Page,
    Read,
    Start,
    StateEnd,
    StatePiece,
    Submit,
    WaitNews,
    encode,
)

ALL: list[Message] = [
    Start(b"settings", 1, 2, "node"),
    StatePiece(b"piece"),
    StateEnd(),
    Applied([b"a", b"b"], [7, 9]),
    NodeState(ready=True, leads=False),
    Answered(1, 7, "", ""),
    Answered(2, 0, "Overloaded", "too much waits"),
    Page(3, 200, [["content-type", "text/plain"]], b"body"),  # type: ignore[list-item]
    Drain(),
    Listening(),
    Submit(4, b"command"),
    Read(5),
    WaitNews(6),
    Ask(7, "/status", "consistent=1"),
    Heartbeat(8, 0.5, 100),
    Measure(9),
    Find(9, "id", [1, 2]),
    Found(9, [[1, 20, True]], [[5, "why", 2]]),
    Measured(9, [["noti_x", "counter", "text", [["noti_x_total", {"a": "b"}, 1.0]]]]),
    Allowance(100),
    Counts("streams", {"192.0.2.1": 3}),
]


def test_every_message_arrives_as_it_was_sent_however_it_is_cut() -> None:
    data = b"".join(map(encode, ALL))
    rng = random.Random(1)
    for _ in range(50):
        decoder, received, at = Decoder(), [], 0
        while at < len(data):
            size = rng.randint(1, 20)
            received += decoder.feed(data[at : at + size])
            at += size
        assert received == ALL


@pytest.mark.parametrize("body", [b"\xc1", b"\x90", b"\x91\x7f", b"\x92\x00\x01", b"\x05"])
def test_what_is_no_message_is_an_error(body: bytes) -> None:
    with pytest.raises(MessageInvalid):
        Decoder().feed(len(body).to_bytes(4, "little") + body)


def test_length_that_no_message_has_is_an_error_at_once() -> None:
    with pytest.raises(MessageInvalid):
        Decoder().feed((MESSAGE_BYTES_MAX + 1).to_bytes(4, "little"))
