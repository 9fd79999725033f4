"""The stream codec: bytes in pieces of any size, limits, garbage."""

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.swim.core.encoding import MessageType, pack
from noti.swim.core.messages import (
    VERSIONS,
    Ack,
    Failure,
    MemberState,
    Ping,
    PushPull,
    RemoteNode,
    StreamMessage,
    User,
)
from noti.swim.core.streams import STREAM_BYTES_MAX, StreamDecoder, encode_stream


def decode(data: bytes, piece_bytes: int = 1 << 16) -> StreamMessage | None:
    decoder = StreamDecoder()
    for start in range(0, len(data), piece_bytes):
        message = decoder.feed(data[start : start + piece_bytes])
        if message is not None:
            return message
    return None


def state(count: int, user_state: bytes = b"above") -> PushPull:
    nodes = tuple(
        RemoteNode(f"node{n}", ("10.0.0.1", 1 + n), b"\xff\x80", n, MemberState(n % 4), VERSIONS)
        for n in range(count)
    )
    return PushPull(True, nodes, user_state)


def encoded(node: RemoteNode) -> bytes:
    return encode_stream(PushPull(True, (node,), b"")).removeprefix(
        pack(MessageType.PUSH_PULL, {"Join": True, "Nodes": 1, "UserStateLen": 0})
    )


MESSAGES: list[StreamMessage] = [
    Ping(7, "beta", ("127.0.0.1", 7946), "alpha"),
    Ack(7, None),
    User(bytes(3000)),
    User(b""),
    Failure("remote state is encrypted"),
    state(0, b""),
    state(5),
]


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 1000])
@pytest.mark.parametrize("message", MESSAGES)
def test_message_survives_pieces_of_any_size(message: StreamMessage, piece_bytes: int) -> None:
    assert decode(encode_stream(message), piece_bytes) == message


def test_message_is_complete_with_its_last_byte_and_not_before() -> None:
    for message in MESSAGES:
        data = encode_stream(message)
        assert decode(data[:-1]) is None
        assert decode(data) == message


def test_state_of_a_real_agent_decodes() -> None:
    data = bytes.fromhex(
        "06 83 a4 4a6f696e c3 a5 4e6f646573 01 ac 557365725374617465 4c656e cd 024c"
        "87 a4 41646472 a4 7f000002 ab 496e6361726e6174696f6e 01 a4 4d657461 a2 ff80"
        "a4 4e616d65 a4 62657461 a4 506f7274 cd 55ba a5 5374617465 00 a3 56736e a6 010502020505"
    )
    user_state = bytes(588)
    node = RemoteNode("beta", ("127.0.0.2", 21946), b"\xff\x80", 1, MemberState.ALIVE, VERSIONS)
    expected = PushPull(True, (node,), user_state)
    assert decode(data + user_state) == expected
    assert encode_stream(expected) == data + user_state


def test_answer_to_a_ping_over_tcp_that_agents_take_decodes() -> None:
    assert decode(bytes.fromhex("02 82 a5 5365714e6f 01 a7 5061796c6f6164 c0")) == Ack(1, None)


def test_numbers_are_understood_as_old_and_new_agents_spell_them() -> None:
    # 588 unsigned, signed, and of 32 and 64 bits: newer agents write what Go has as signed so.
    for size in ("cd 024c", "d1 024c", "ce 0000024c", "d2 0000024c", "d3 000000000000024c"):
        data = "06 83 a4 4a6f696e c3 a5 4e6f646573 00 ac 557365725374617465 4c656e" + size
        assert decode(bytes.fromhex(data) + bytes(588)) == PushPull(True, (), bytes(588))


def test_big_state_is_decoded_whole() -> None:
    big = state(1000, bytes(100_000))
    assert decode(encode_stream(big)) == big


@pytest.mark.parametrize(
    "header",
    [
        {"Nodes": -1, "UserStateLen": 0},
        {"Nodes": 1_048_577, "UserStateLen": 0},
        {"Nodes": 0, "UserStateLen": -1},
        {"Nodes": 0, "UserStateLen": STREAM_BYTES_MAX + 1},
        {"Nodes": "many", "UserStateLen": 0},
        {"Nodes": 0, "UserStateLen": 0, "Join": 1},
    ],
)
def test_state_beyond_the_limits_is_rejected(header: dict[str, object]) -> None:
    with pytest.raises(MessageInvalid):
        decode(pack(MessageType.PUSH_PULL, header))


@pytest.mark.parametrize(
    "odd",
    [
        {"Name": b"tab\there"},
        {"Name": "x" * 200},
        {"Name": ""},
        {"Name": b"\xff"},
        {"State": 4},
        {"Port": 0},
        {"Addr": b"123"},
        {"Meta": bytes(513)},
        {"Incarnation": -1},
        {"Vsn": b"123"},
    ],
)
def test_odd_node_of_a_state_is_skipped_and_the_others_count(odd: dict[str, object]) -> None:
    whole = state(3)
    first, _, third = whole.nodes
    header = {"Join": True, "Nodes": 3, "UserStateLen": len(whole.user_state)}
    node = {"Addr": b"\x0a\0\0\1", "Name": "node1", "Port": 2, "State": 1, "Vsn": VERSIONS} | odd
    maps = [encoded(first), msgpack.packb(node, use_bin_type=False), encoded(third)]
    decoder = StreamDecoder()
    decoded = decoder.feed(pack(MessageType.PUSH_PULL, header) + b"".join(maps) + whole.user_state)
    assert decoded == PushPull(True, (first, third), whole.user_state)
    assert len(decoder.invalid_records) == 1


def test_reason_of_the_other_side_is_fit_for_a_log() -> None:
    reason = "no\n\x1b[31mred" + "x" * 1000
    failure = decode(encode_stream(Failure(reason)))
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("no  [31mred")
    assert len(failure.reason) == 200


def test_user_message_beyond_the_limit_is_rejected() -> None:
    with pytest.raises(MessageInvalid):
        decode(pack(MessageType.USER, {"UserMsgLen": STREAM_BYTES_MAX + 1}))


def test_endless_stream_is_rejected() -> None:
    decoder = StreamDecoder()
    decoder.feed(pack(MessageType.PUSH_PULL, {"Nodes": 0, "UserStateLen": STREAM_BYTES_MAX}))
    for _ in range(STREAM_BYTES_MAX // 2**20 - 1):
        assert decoder.feed(bytes(2**20)) is None
    with pytest.raises(MessageInvalid, match="more than"):
        decoder.feed(bytes(2**20))


@pytest.mark.parametrize(
    "data",
    [
        b"\x63",
        b"\x09\x82",
        b"\x0a\x00\x00",
        b"\x06\x93\x01\x02\x03",
        b"\x06\xc1",
        pack(MessageType.PUSH_PULL, {"Nodes": 1}) + msgpack.packb([1]),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_wrong_stream_is_rejected(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode(data)


@given(st.integers(0, 15), st.binary(max_size=300), st.integers(1, 50))
def test_random_bytes_are_rejected_and_nothing_else_escapes(
    kind: int, data: bytes, size: int
) -> None:
    with suppress(MessageInvalid):
        decode(bytes([kind]) + data, size)
