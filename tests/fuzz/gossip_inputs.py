"""Packets and streams of gossip as fuzzing begins with them, plain and in all their layers."""

import random
from collections.abc import Callable, Sequence

from noti.errors import MessageInvalid
from noti.swim.core.coordinates import ORIGIN_PAYLOAD, decode_coordinate
from noti.swim.core.encoding import MessageType, pack
from noti.swim.core.keyring import KeyRing, format_key
from noti.swim.core.lzw import expand
from noti.swim.core.messages import (
    VERSIONS,
    Ack,
    Alive,
    Dead,
    Failure,
    IndirectPing,
    MemberState,
    Message,
    Nack,
    Ping,
    PushPull,
    RemoteNode,
    StreamMessage,
    Suspect,
    User,
)
from noti.swim.core.packets import (
    EXPANDED_BYTES_MAX,
    decode_packet,
    decode_tags,
    encode,
    encode_packet,
    encode_tags,
)
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.core.stream_layers import StreamReader, encode_question
from noti.swim.core.streams import StreamDecoder, encode_stream
from tests.fuzz.serf_inputs import SERF_STATE
from tests.swim.core import agent_bytes
from tests.swim.core.lzw_encoder import compress

PLACE = ("127.0.0.1", 17946)
MESSAGES: list[Message] = [
    Ping(2, "beta", PLACE, "alpha"),
    IndirectPing(1, "py1", ("127.0.0.3", 18946), True, PLACE, "alpha"),
    Ack(1, b"payload"),
    Nack(3),
    Alive(2, "beta", ("127.0.0.2", 17946), encode_tags({"role": "db"}), VERSIONS),
    Suspect(3, "beta", "alpha"),
    Dead(2, "beta", "beta"),
    User(b"\x01\x82\xa5LTime\x01\xa4Node\xa4beta"),
]
PACKETS = [*map(encode, MESSAGES), encode_packet([*map(encode, MESSAGES)])]
NODE = RemoteNode("beta", ("::1", 8401), b"", 3, MemberState.ALIVE, VERSIONS)
STATE = PushPull(True, (NODE, NODE), SERF_STATE)
STREAM_MESSAGES: list[StreamMessage] = [STATE, Ping(2, "beta", PLACE, "alpha"), Ack(1, None)]
STREAMS = [*map(encode_stream, STREAM_MESSAGES)]

COMPRESSED = [compress(b"aaaaaaaaaa"), compress(PACKETS[-1]), compress(bytes(5000))]


def sealing(encryption: Encryption) -> Sealing:
    keys = KeyRing([agent_bytes.KEY, bytes(16)])
    return Sealing(keys, encryption, "blue", random.Random(1).randbytes)


def compressed(body: bytes) -> bytes:
    return pack(MessageType.COMPRESS, {"Algo": 0, "Buf": compress(body)})


SEALED_PACKETS = [sealing(Encryption.REQUIRED).seal_packet(packet) for packet in PACKETS]
PLAIN_PACKETS = [b"\xf4\x04blue" + packet for packet in (*PACKETS, *map(compressed, PACKETS))]
SEALED_STREAMS = [
    encode_question(message, sealing(Encryption.REQUIRED)) for message in STREAM_MESSAGES
]
PLAIN_STREAMS = [b"\xf4\x04blue" + stream for stream in (*STREAMS, *map(compressed, STREAMS))]


def take_packet(data: bytes) -> None:
    """Sealed ones only whole: what was changed anywhere is under none of our keys."""
    for encryption in Encryption:
        ours = sealing(encryption)
        try:
            packet = ours.open_packet(data)
        except MessageInvalid:
            continue
        if encryption is Encryption.REQUIRED:
            assert data in SEALED_PACKETS
        decode_packet(packet)


def take_sealed(data: bytes) -> None:
    """What a member with the key may send: the layers below are as wrong as without it."""
    ours = sealing(Encryption.REQUIRED)
    decode_packet(ours.open_packet(ours.seal_packet(data)))


def take_stream(data: bytes) -> None:
    for encryption in Encryption:
        for answer in (False, True):
            ours = sealing(encryption)
            whole = outcome(StreamReader(ours, answer=answer), data, len(data) or 1)
            assert whole == outcome(StreamReader(ours, answer=answer), data, 7)
            heard = (MessageInvalid, None, *STREAM_MESSAGES)
            if encryption is Encryption.REQUIRED and not isinstance(whole, Failure):
                assert whole in heard


def take_sealed_stream(data: bytes) -> None:
    ours = sealing(Encryption.REQUIRED)
    sealed = ours.seal_stream(data)
    whole = outcome(StreamReader(ours, answer=True), sealed, len(sealed))
    assert whole is not None
    if whole is MessageInvalid:
        raise MessageInvalid("as it should be")


def feed_stream(data: bytes) -> None:
    """In pieces, and whole: both come to the same end."""

    def end(size: int) -> object:
        decoder = StreamDecoder()
        try:
            for start in range(0, len(data), size):
                message = decoder.feed(data[start : start + size])
                if message is not None:
                    return message
        except MessageInvalid:
            return MessageInvalid
        return None

    assert end(len(data) or 1) == end(7)


def outcome(reader: StreamReader, data: bytes, size: int) -> object:
    try:
        for start in range(0, len(data), size):
            for message in reader.feed(data[start : start + size]):
                if message is not None:
                    return message
    except MessageInvalid:
        return MessageInvalid
    return None


def take_compressed(data: bytes) -> None:
    assert len(expand(data, EXPANDED_BYTES_MAX)) <= EXPANDED_BYTES_MAX


KEY_LINES = f"# ours\n{format_key(bytes(32))}\n\n {format_key(bytes(16))}\n".encode()
SAVED_KEYS = (
    f'{{"given": ["{format_key(bytes(32))}"], "keys": ["{format_key(bytes(24))}"]}}'.encode()
)

GOSSIP_DECODERS: dict[str, tuple[Sequence[bytes], Callable[[bytes], object]]] = {
    "packet": ([*PACKETS, agent_bytes.COMPRESSED_PACKET], decode_packet),
    "packet in layers": ([*SEALED_PACKETS, *PLAIN_PACKETS], take_packet),
    "packet of a member": ([*PACKETS, *map(compressed, PACKETS)], take_sealed),
    "stream": (STREAMS, feed_stream),
    "stream in layers": ([*SEALED_STREAMS, *PLAIN_STREAMS], take_stream),
    "stream of a member": ([*STREAMS, *map(compressed, STREAMS)], take_sealed_stream),
    "compression": (COMPRESSED, take_compressed),
    "tags": ([encode_tags({"a": "b", "c": "d"})], decode_tags),
    "coordinate": ([ORIGIN_PAYLOAD], decode_coordinate),
}
"""Examples and decoder, by name."""
