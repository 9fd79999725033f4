"""The layers of a stream: every combination is read in pieces of any size, and nothing else is."""

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import LabelForeign, MessageInvalid, TooLarge, Undecryptable
from noti.swim.core.encoding import MessageType, pack
from noti.swim.core.keyring import KeyRing
from noti.swim.core.lzw import SLICE_CODES
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
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.core.stream_layers import StreamReader, encode_answer, encode_question
from noti.swim.core.streams import STREAM_BYTES_MAX, encode_stream
from tests.swim.core import agent_bytes
from tests.swim.core.lzw_encoder import CLEAR, bomb, compress, pack_codes

KEY, OTHER = bytes(32), bytes(range(16))
PING = Ping(7, "beta", ("127.0.0.1", 7946), "alpha")


def sealing(*keys: bytes, encryption: Encryption = Encryption.REQUIRED, label: str = "") -> Sealing:
    return Sealing(KeyRing(keys) if keys else None, encryption, label, random.Random(1).randbytes)


def compressed(body: bytes) -> bytes:
    return pack(MessageType.COMPRESS, {"Algo": 0, "Buf": compress(body)})


def read(reader: StreamReader, data: bytes, piece_bytes: int = 1 << 16) -> StreamMessage | None:
    for start in range(0, len(data), piece_bytes):
        for message in reader.feed(data[start : start + piece_bytes]):
            if message is not None:
                return message
    return None


def question(data: bytes, ours: Sealing, piece_bytes: int = 1 << 16) -> StreamMessage | None:
    return read(StreamReader(ours, answer=False), data, piece_bytes)


def answer(data: bytes, ours: Sealing, piece_bytes: int = 1 << 16) -> StreamMessage | None:
    return read(StreamReader(ours, answer=True), data, piece_bytes)


def state(count: int) -> PushPull:
    nodes = tuple(
        RemoteNode(f"node{n}", ("10.0.0.1", 1 + n), b"\xff\x80", n, MemberState(n % 4), VERSIONS)
        for n in range(count)
    )
    return PushPull(True, nodes, bytes(600))


@pytest.mark.parametrize("message", [PING, Ack(7, None), Failure("no"), User(b"x"), state(20)])
@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 16])
@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.parametrize("label", ["", "blue"])
@pytest.mark.parametrize("packs", [False, True])
def test_all_layers_come_off(
    message: StreamMessage, piece_bytes: int, keys: tuple[bytes, ...], label: str, packs: bool
) -> None:
    ours = sealing(*keys, label=label)
    body = encode_stream(message)
    if packs:
        body = compressed(body)
    if keys:
        body = ours.seal_stream(body)
    header = b"\xf4\x04blue" if label else b""
    assert question(header + body, ours, piece_bytes) == message
    assert answer(body, ours, piece_bytes) == message


@pytest.mark.parametrize(
    ("data", "keys", "port"),
    [
        pytest.param(agent_bytes.COMPRESSED_ANSWER, (), 56521, id="compressed"),
        pytest.param(agent_bytes.SEALED_ANSWER, (agent_bytes.KEY,), 56078, id="sealed"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 1 << 16])
def test_state_of_a_real_agent_is_read(
    data: bytes, keys: tuple[bytes, ...], port: int, piece_bytes: int
) -> None:
    received = answer(data, sealing(*keys), piece_bytes)
    assert isinstance(received, PushPull)
    agent = RemoteNode("agent1", ("127.0.0.1", port), b"\xff\x80", 1, MemberState.ALIVE, VERSIONS)
    assert received.nodes == (agent,)
    assert received.user_state.startswith(b"\x02\x86\xaaEventLTime")


@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.parametrize("label", ["", "blue"])
def test_what_is_sent_is_read(keys: tuple[bytes, ...], label: str) -> None:
    ours = sealing(*keys, label=label)
    reader = StreamReader(ours, answer=False)
    assert read(reader, encode_question(PING, ours)) == PING
    assert reader.sealed == bool(keys)
    answered = encode_answer(Ack(7, None), ours, sealed=reader.sealed)
    assert answer(answered, ours) == Ack(7, None)


def test_label_comes_from_the_side_that_dials_and_only_from_it() -> None:
    ours = sealing(label="blue")
    sent = encode_question(PING, ours)
    assert sent.startswith(b"\xf4\x04blue")
    assert not encode_answer(Ack(7, None), ours, sealed=False).startswith(b"\xf4")
    with pytest.raises(MessageInvalid):
        answer(sent, ours)


@pytest.mark.parametrize("start", [b"", b"\xf4\x03red", b"\xf4\x00", b"\xf4\x05blues"])
def test_question_with_another_label_is_rejected(start: bytes) -> None:
    with pytest.raises(LabelForeign):
        question(start + encode_stream(PING), sealing(label="blue"))


def test_question_with_a_label_is_rejected_by_a_node_without() -> None:
    with pytest.raises(LabelForeign):
        question(b"\xf4\x04blue" + encode_stream(PING), sealing())


def test_answer_sealed_under_another_label_is_rejected() -> None:
    sealed = encode_answer(Ack(7, None), sealing(KEY, label="red"), sealed=True)
    with pytest.raises(Undecryptable):
        answer(sealed, sealing(KEY, label="blue"))


@pytest.mark.parametrize("message", [PING, state(3)])
def test_plain_question_is_rejected_where_encryption_is_required(message: StreamMessage) -> None:
    for body in (encode_stream(message), compressed(encode_stream(message))):
        for reads in (question, answer):
            with pytest.raises(Undecryptable, match="not encrypted"):
                reads(body, sealing(KEY))


def test_reason_of_a_node_without_our_key_is_heard_but_no_other_plain_answer() -> None:
    failure = Failure("no key")
    assert answer(encode_stream(failure), sealing(KEY)) == failure
    assert answer(compressed(encode_stream(failure)), sealing(KEY)) == failure  # as agents do
    with pytest.raises(Undecryptable):
        question(encode_stream(Failure("no key")), sealing(KEY))


@pytest.mark.parametrize("encryption", [Encryption.UNDERSTOOD, Encryption.SENT])
def test_plain_and_sealed_are_taken_while_encryption_is_rolled_out(encryption: Encryption) -> None:
    ours = sealing(KEY, encryption=encryption)
    assert question(encode_stream(PING), ours) == PING
    assert question(ours.seal_stream(encode_stream(PING)), ours) == PING
    with pytest.raises(Undecryptable):
        question(sealing(OTHER).seal_stream(encode_stream(PING)), ours)


def test_sealed_question_without_a_key_is_rejected_at_its_first_byte() -> None:
    reader = StreamReader(sealing(), answer=False)
    with pytest.raises(Undecryptable, match="no gossip key"):
        read(reader, b"\x0a")
    assert reader.sealed
    assert reader.is_gossip


def test_second_key_opens_and_a_changed_byte_does_not() -> None:
    sealed = bytearray(sealing(OTHER).seal_stream(encode_stream(state(3))))
    assert question(bytes(sealed), sealing(KEY, OTHER)) == state(3)
    for position in range(5, len(sealed)):
        changed = sealed.copy()
        changed[position] ^= 1
        with pytest.raises(Undecryptable):
            question(bytes(changed), sealing(KEY, OTHER))


def test_length_beyond_the_limit_is_rejected_before_it_arrives() -> None:
    with pytest.raises(MessageInvalid, match="bytes"):
        question(b"\x0a" + (STREAM_BYTES_MAX + 1).to_bytes(4, "big"), sealing(KEY))


def test_compressed_stream_stands_for_no_more_than_the_limit() -> None:
    packed = pack(MessageType.COMPRESS, {"Algo": 0, "Buf": bomb(STREAM_BYTES_MAX)})
    assert len(packed) < 10_000
    for data in (packed, sealing(KEY).seal_stream(packed)):
        with pytest.raises(TooLarge):
            question(data, sealing(KEY, encryption=Encryption.SENT))


def test_endless_compressed_stream_is_rejected() -> None:
    reader = StreamReader(sealing(), answer=False)
    assert read(reader, b"\x09\x82\xa4Algo\x00\xa3Buf\xdb\xff\xff\xff\xff") is None
    for _ in range(STREAM_BYTES_MAX // 2**20 - 1):
        assert read(reader, bytes(2**20)) is None
    with pytest.raises(MessageInvalid):
        read(reader, bytes(2**20 + 1))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(compressed(compressed(encode_stream(PING))), id="compressed twice"),
        pytest.param(compressed(encode_stream(PING)[:-1]), id="cut off inside"),
        pytest.param(compressed(b""), id="nothing inside"),
        pytest.param(b"\x09\x93\x01\x02\x03", id="no map"),
        pytest.param(b"\x09\x81\xa4Algo\x01", id="algorithm"),
        pytest.param(b"\x09\xc1", id="no msgpack"),
        pytest.param(b"\x63", id="unknown type"),
        pytest.param(b"\x0c\x00\x00\x00\x00" + encode_stream(PING), id="CRC"),
    ],
)
def test_wrong_layers_are_rejected_plain_and_sealed(body: bytes) -> None:
    for data in (body, sealing(KEY).seal_stream(body)):
        with pytest.raises(MessageInvalid):
            question(data, sealing(KEY, encryption=Encryption.SENT))


@pytest.mark.parametrize("body", [b"", encode_stream(PING)[:-1], compressed(b"abc")[:-1]])
def test_sealed_message_that_is_cut_off_is_rejected_at_once(body: bytes) -> None:
    with pytest.raises(MessageInvalid, match="cut off"):
        question(sealing(KEY).seal_stream(body), sealing(KEY))


def test_sealed_stream_in_a_sealed_stream_is_rejected() -> None:
    ours = sealing(KEY)
    with pytest.raises(MessageInvalid):
        question(ours.seal_stream(ours.seal_stream(encode_stream(PING))), ours)


def test_only_what_begins_like_gossip_is_to_be_answered() -> None:
    for label in ("", "blue"):
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x63"):
            reader = StreamReader(sealing(label=label), answer=False)
            with pytest.raises(MessageInvalid):
                read(reader, data)
            assert not reader.is_gossip
        reader = StreamReader(sealing(label="red"), answer=False)
        with pytest.raises(MessageInvalid):
            read(reader, b"\xf4\x04blue")
        assert reader.is_gossip


def test_odd_nodes_of_a_compressed_state_are_skipped_and_told() -> None:
    odd = RemoteNode("x" * 200, ("10.0.0.1", 1), b"", 1, MemberState.ALIVE, VERSIONS)
    sent = PushPull(True, (*state(2).nodes, odd), b"")
    reader = StreamReader(sealing(), answer=False)
    assert read(reader, compressed(encode_stream(sent))) == PushPull(True, state(2).nodes, b"")
    assert reader.invalid_records == ["field Name is not a name"]


def test_big_work_is_done_in_slices() -> None:
    codes = pack_codes(*[CLEAR] * 20 * SLICE_CODES)
    flood = pack(MessageType.COMPRESS, {"Algo": 0, "Buf": codes})
    steps = StreamReader(sealing(KEY), answer=False).feed(sealing(KEY).seal_stream(flood))
    assert [next(steps) for _ in range(20)] == [None] * 20
    with pytest.raises(MessageInvalid, match="cut off"):
        next(steps)
    reader = StreamReader(sealing(), answer=False)
    slices = list(reader.feed(encode_stream(state(4000))))
    assert slices[-1] == state(4000)
    assert len(slices) > 10


STARTS = [*(bytes([kind]) for kind in range(16)), b"", b"\xf4", b"\xf4\x04blue", b"\x09\x82"]


@given(st.sampled_from(STARTS), st.binary(max_size=300), st.booleans())
def test_random_bytes_are_rejected_and_nothing_else_escapes(
    start: bytes, data: bytes, is_answer: bool
) -> None:
    for ours in (sealing(), sealing(KEY, encryption=Encryption.SENT), sealing(label="blue")):
        with suppress(MessageInvalid):
            read(StreamReader(ours, answer=is_answer), start + data)
        with suppress(MessageInvalid):
            sealed = sealing(KEY).seal_stream(start + data)
            read(StreamReader(ours, answer=is_answer), sealed)
