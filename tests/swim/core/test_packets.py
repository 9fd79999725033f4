"""The packet codec against real agents' bytes, against itself, and against garbage."""

import random
import zlib
from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import ConfigInvalid, MessageInvalid
from noti.swim.core.encoding import MessageType, pack
from noti.swim.core.messages import (
    META_BYTES_MAX,
    VERSIONS,
    Ack,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Nack,
    Ping,
    Suspect,
    User,
)
from noti.swim.core.packets import (
    COMPRESSED_BYTES_MAX,
    EXPANDED_BYTES_MAX,
    Packet,
    decode_packet,
    decode_tags,
    encode,
    encode_packet,
    encode_tags,
)
from tests.swim.core import agent_bytes
from tests.swim.core.lzw_encoder import compress

GOLDEN: dict[str, tuple[str, Message]] = {
    "ping": (
        "00 85 a4 4e6f6465 a4 62657461 a5 5365714e6f 02 aa 536f7572636541646472 a4 7f000001"
        "aa 536f757263654e6f6465 a5 616c706861 aa 536f75726365506f7274 cd 461a",
        Ping(2, "beta", ("127.0.0.1", 17946), "alpha"),
    ),
    "alive": (
        "0c 5f22d1bc 04 86 a4 41646472 a4 7f000002 ab 496e6361726e6174696f6e 02 a4 4d657461"
        "b0 ff 82 a4 726f6c65 a2 6462 a3 766572 a1 32 a4 4e6f6465 a4 62657461"
        "a4 506f7274 cd 461a a3 56736e a6 010502020505",
        Alive(2, "beta", ("127.0.0.2", 17946), encode_tags({"role": "db", "ver": "2"}), VERSIONS),
    ),
    "suspect": (
        "0c 0b7d4ebf 03 83 a4 46726f6d a5 616c706861 ab 496e6361726e6174696f6e 03"
        "a4 4e6f6465 a4 62657461",
        Suspect(3, "beta", "alpha"),
    ),
    "dead": (
        "0c c2bdb943 05 83 a4 46726f6d a5 616c706861 ab 496e6361726e6174696f6e 03"
        "a4 4e6f6465 a4 62657461",
        Dead(3, "beta", "alpha"),
    ),
    "left": (
        "0c 9add4e33 05 83 a4 46726f6d a4 62657461 ab 496e6361726e6174696f6e 02"
        "a4 4e6f6465 a4 62657461",
        Dead(2, "beta", "beta"),
    ),
    "indirect ping": (
        "01 88 a4 4e61636b c3 a4 4e6f6465 a3 707931 a4 506f7274 cd 4a02 a5 5365714e6f 01"
        "aa 536f7572636541646472 a4 7f000001 aa 536f757263654e6f6465 a5 616c706861"
        "aa 536f75726365506f7274 cd 4a02 a6 546172676574 a4 7f000003",
        IndirectPing(1, "py1", ("127.0.0.3", 18946), True, ("127.0.0.1", 18946), "alpha"),
    ),
    "nack": ("0b 81 a5 5365714e6f 03", Nack(3)),
    "join intent": (
        "0c aada2b16 08 01 82 a5 4c54696d65 01 a4 4e6f6465 a4 62657461",
        User(bytes.fromhex("01 82 a5 4c54696d65 01 a4 4e6f6465 a4 62657461")),
    ),
    "leave intent": (
        "0c 54cd3b76 08 00 83 a5 4c54696d65 02 a4 4e6f6465 a4 62657461 a5 5072756e65 c2",
        User(bytes.fromhex("00 83 a5 4c54696d65 02 a4 4e6f6465 a4 62657461 a5 5072756e65 c2")),
    ),
    "user event": (
        "0c 4a162886 08 03 84 a2 4343 c3 a5 4c54696d65 01 a4 4e616d65 a6 6465706c6f79"
        "a7 5061796c6f6164 a6 616263313233",
        User(
            bytes.fromhex(
                "03 84 a2 4343 c3 a5 4c54696d65 01 a4 4e616d65 a6 6465706c6f79"
                "a7 5061796c6f6164 a6 616263313233"
            )
        ),
    ),
    "ack of a query": (
        "08 05 85 a5 466c616773 01 a4 46726f6d a4 62657461 a2 4944 ce 36c7e5a9"
        "a5 4c54696d65 01 a7 5061796c6f6164 c0",
        User(
            bytes.fromhex(
                "05 85 a5 466c616773 01 a4 46726f6d a4 62657461 a2 4944 ce 36c7e5a9"
                "a5 4c54696d65 01 a7 5061796c6f6164 c0"
            )
        ),
    ),
}
"""Captured from Debian's serf 0.9.4."""

names = st.from_regex(r"[A-Za-z0-9.-]{1,128}", fullmatch=True)
numbers = st.integers(0, 2**32 - 1)
addresses = st.tuples(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
    .map(lambda ip: getattr(ip, "ipv4_mapped", None) or ip)
    .map(str),
    st.integers(1, 65535),
)
sources = st.one_of(st.just((None, "")), st.tuples(addresses, names))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(lambda number, name, source: Ping(number, name, *source), numbers, names, sources),
    st.builds(
        lambda number, name, address, nack, source: IndirectPing(
            number, name, address, nack, *source
        ),
        numbers,
        names,
        addresses,
        st.booleans(),
        sources,
    ),
    st.builds(Ack, numbers, st.none() | st.binary(max_size=200)),
    st.builds(Nack, numbers),
    st.builds(
        Alive,
        numbers,
        names,
        addresses,
        st.binary(max_size=META_BYTES_MAX),
        st.binary(min_size=6, max_size=6),
    ),
    st.builds(Suspect, numbers, names, names),
    st.builds(Dead, numbers, names, names),
    st.builds(User, st.binary(max_size=200)),
)


def with_crc(body: bytes) -> bytes:
    return b"\x0c" + zlib.crc32(body).to_bytes(4, "big") + body


def compressed(body: bytes, algorithm: int = 0) -> bytes:
    return pack(MessageType.COMPRESS, {"Algo": algorithm, "Buf": compress(body)})


@pytest.mark.parametrize("name", GOLDEN)
def test_packet_of_a_real_agent_decodes_and_encodes_to_the_same_bytes(name: str) -> None:
    raw, message = GOLDEN[name]
    packet = bytes.fromhex(raw)
    assert decode_packet(packet) == Packet((message,), 0)
    body = packet[5:] if packet[0] == 12 else packet
    assert encode(message) == body


def test_ack_of_a_real_agent_with_a_coordinate_decodes() -> None:
    payload = b"\x01" + bytes(129)
    raw = b"\x02\x82\xa7Payload\xda\x00\x82" + payload + b"\xa5SeqNo\x02"
    assert decode_packet(raw) == Packet((Ack(2, payload),), 0)


def test_probe_of_a_suspect_decodes_to_ping_and_suspicion() -> None:
    parts = [bytes.fromhex(GOLDEN["ping"][0]), bytes.fromhex(GOLDEN["suspect"][0])[5:]]
    packet = with_crc(encode_packet(parts))
    assert decode_packet(packet).messages == (GOLDEN["ping"][1], GOLDEN["suspect"][1])


@given(st.lists(messages, min_size=1, max_size=20))
def test_what_is_encoded_decodes_to_the_same(sent: list[Message]) -> None:
    assert decode_packet(encode_packet([encode(each) for each in sent])) == Packet(tuple(sent), 0)


@given(messages)
def test_encoder_never_uses_types_of_the_new_msgpack(message: Message) -> None:
    if isinstance(message, User):
        return
    repacked = msgpack.packb(msgpack.unpackb(encode(message)[1:], raw=True), use_bin_type=False)
    assert encode(message)[1:] == repacked


@given(st.binary(max_size=300))
def test_random_bytes_are_rejected_and_nothing_else_escapes(data: bytes) -> None:
    for packet in (data, b"\x07" + data, *(bytes([kind]) + data for kind in range(16))):
        with suppress(MessageInvalid):
            decode_packet(packet)


@given(messages, st.data())
def test_damaged_message_is_rejected_and_nothing_else_escapes(
    message: Message, data: st.DataObject
) -> None:
    packet = bytearray(encode(message))
    position = data.draw(st.integers(0, len(packet) - 1))
    packet[position] = data.draw(st.integers(0, 255))
    with suppress(MessageInvalid):
        decode_packet(bytes(packet[: data.draw(st.integers(0, len(packet)))]))


def test_deeply_nested_arrays_are_rejected_before_they_take_memory() -> None:
    with pytest.raises(MessageInvalid):
        decode_packet(b"\x00\x81\xa1x" + b"\xdd\x00\x00\xff\xff" * 10_000)


def test_deeply_nested_compound_is_rejected() -> None:
    packet = encode(Nack(1))
    for _ in range(20):
        packet = (
            encode_packet([packet, packet])
            if len(packet) < 100
            else encode_packet([packet, encode(Nack(2))])
        )
    assert decode_packet(packet).invalid_parts > 0


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x0c",
        b"\x0c\x00\x00\x00",
        b"\x0c\x00\x00\x00\x00" + encode(Nack(1)),
        b"\x07",
        b"\x07\xff\x00\x01",
        b"\x63" + encode(Nack(1)),
        b"\xf4\x03abc" + encode(Nack(1)),
        b"\x09\x82",
        b"\x00",
        b"\x00\x93\x01\x02\x03",
        b"\x0b\x81\xa5SeqNo\xff",
        b"\x0b\x81\xa5SeqNo\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0b\x81\xa5SeqNo\xa1x",
        b"\x03\x82\xa4Node\xa0\xa4From\xa1a",
        b"\x03\x82\xa4Node\xa1\n\xa4From\xa1a",
        b"\x04" + msgpack.packb({"Node": "a", "Addr": b"123", "Port": 1}, use_bin_type=False),
        b"\x04" + msgpack.packb({"Node": "a", "Addr": b"1234", "Port": 0}, use_bin_type=False),
        b"\x04"
        + msgpack.packb(
            {"Node": "a", "Addr": b"1234", "Port": 1, "Meta": bytes(513)}, use_bin_type=False
        ),
    ],
)
def test_wrong_packet_is_rejected(packet: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_packet(packet)


def test_crc_inside_a_compound_is_no_message() -> None:
    packet = encode_packet([with_crc(encode(Nack(1))), encode(Nack(2))])
    assert decode_packet(packet) == Packet((Nack(2),), 1)


def test_compressed_packet_of_a_real_agent_decodes() -> None:
    ack, intent = decode_packet(agent_bytes.COMPRESSED_PACKET).messages
    assert isinstance(ack, Ack)
    assert (ack.sequence, len(ack.payload or b"")) == (849499449, 130)
    assert intent == User(b"\x01\x82\xa5LTime\x01\xa4Node\xa4ours")


@pytest.mark.parametrize("sent", [[Nack(1)], [Nack(n) for n in range(255)]])
@pytest.mark.parametrize("has_crc", [False, True])
def test_compressed_packet_decodes(sent: list[Message], has_crc: bool) -> None:
    packet = compressed(encode_packet([encode(each) for each in sent]))
    assert decode_packet(with_crc(packet) if has_crc else packet) == Packet(tuple(sent), 0)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(compressed(with_crc(encode(Nack(1)))), id="CRC inside"),
        pytest.param(compressed(compressed(encode(Nack(1)))), id="twice"),
        pytest.param(compressed(b""), id="nothing"),
        pytest.param(compressed(encode(Nack(1)), algorithm=1), id="algorithm"),
        pytest.param(compressed(encode(Nack(1)), algorithm=-1), id="negative algorithm"),
        pytest.param(b"\x09\x81\xa4Algo\x00", id="no buffer"),
        pytest.param(compressed(encode(Nack(1)))[:-2], id="cut off"),
        pytest.param(compressed(b"\x08" + bytes(EXPANDED_BYTES_MAX)), id="bomb"),
    ],
)
def test_wrong_compressed_packet_is_rejected(packet: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_packet(packet)


def test_more_compressed_bytes_than_any_agent_sends_are_rejected_unexpanded() -> None:
    noise = random.Random(1).randbytes(COMPRESSED_BYTES_MAX)
    packet = compressed(b"\x08" + noise)
    assert len(packet) > COMPRESSED_BYTES_MAX
    with pytest.raises(MessageInvalid, match="compressed bytes"):
        decode_packet(packet)


def test_compressed_message_in_a_compound_is_no_message() -> None:
    packet = encode_packet([compressed(encode(Nack(1))), encode(Nack(2))])
    assert decode_packet(packet) == Packet((Nack(2),), 1)


def test_compound_that_is_cut_off_keeps_its_first_parts() -> None:
    packet = encode_packet([encode(Nack(1)), encode(Nack(2)), encode(Nack(3))])
    assert decode_packet(packet[:-5]) == Packet((Nack(1), Nack(2)), 1)


def test_unknown_keys_and_trailing_bytes_are_skipped_and_missing_keys_are_zero() -> None:
    body = msgpack.packb({"Node": "b", "New": {"nested": [1, 2]}, "seqno": 9}, use_bin_type=False)
    assert decode_packet(b"\x00" + body + b"rest") == Packet((Ping(0, "b", None, ""),), 0)


def test_new_msgpack_types_and_other_forms_of_a_field_are_understood() -> None:
    body = msgpack.packb(
        {
            "Node": "b" * 40,
            "Addr": bytes(10) + b"\xff\xff\x7f\x00\x00\x01",
            "Port": 7946,
            "Meta": None,
            "Vsn": [1, 5, 2, 2, 5, 5],
            "Incarnation": 1,
        },
        use_bin_type=True,
    )
    alive = Alive(1, "b" * 40, ("127.0.0.1", 7946), b"", VERSIONS)
    assert decode_packet(b"\x04" + body).messages == (alive,)


def test_tags_have_serfs_form() -> None:
    assert encode_tags({}) == b"\xff\x80"
    assert encode_tags({"ver": "2", "role": "db"}) == b"\xff\x82\xa4role\xa2db\xa3ver\xa12"
    assert decode_tags(b"\xff\x82\xa4role\xa2db\xa3ver\xa12") == {"role": "db", "ver": "2"}
    assert decode_tags(b"\xff" + msgpack.packb({"k": "v" * 40})) == {"k": "v" * 40}


def test_metadata_that_is_no_map_is_the_old_role() -> None:
    assert decode_tags(b"web") == {"role": "web"}
    assert decode_tags(b"") == {"role": ""}


def test_tags_fill_metadata_to_its_last_byte_and_no_further() -> None:
    key_bytes = len(encode_tags({"k": "v" * 300})) - 300
    assert len(encode_tags({"k": "v" * (META_BYTES_MAX - key_bytes)})) == META_BYTES_MAX
    with pytest.raises(ConfigInvalid, match="513"):
        encode_tags({"k": "v" * (META_BYTES_MAX - key_bytes + 1)})


@pytest.mark.parametrize("meta", [b"\xff", b"\xff\x81\xa1k", b"\xff\x81\xa1k\x01", b"\xff\xa1k"])
def test_broken_tags_are_rejected(meta: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_tags(meta)
