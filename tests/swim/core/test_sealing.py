"""Sealing: what is opened was sealed by somebody with a key and our label, to the last bit."""

import itertools
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import LabelForeign, Undecryptable
from noti.swim.core.keyring import KEY_BYTES, KeyRing
from noti.swim.core.messages import Ack, Alive, Ping
from noti.swim.core.packets import Packet, decode_packet
from noti.swim.core.sealing import SEALED_BYTES_MIN, STREAM_HEADER_BYTES, Encryption, Sealing
from tests.swim.core import agent_bytes

KEY = bytes(range(32))
OTHER = bytes(range(32, 48))
NONCE = bytes(range(12))
PLAIN = b"\x0b\x81\xa5SeqNo\x03"


def sealing(*keys: bytes, encryption: Encryption = Encryption.REQUIRED, label: str = "") -> Sealing:
    ring = KeyRing(keys) if keys else None
    return Sealing(ring, encryption, label, random.Random(1).randbytes)


def sealed_by_an_old_agent(plain: bytes, key: bytes = KEY, label: bytes = b"") -> bytes:
    """Version 0, padded."""
    padding = 16 - len(plain) % 16
    return padded_as_it_is(plain + bytes([padding]) * padding, key, label)


def padded_as_it_is(padded: bytes, key: bytes = KEY, label: bytes = b"") -> bytes:
    return b"\x00" + NONCE + AESGCM(key).encrypt(NONCE, padded, label)


@pytest.mark.parametrize("size", KEY_BYTES)
@pytest.mark.parametrize("label", ["", "blue", "x" * 255])
def test_packet_survives_with_keys_of_all_lengths_and_labels(size: int, label: str) -> None:
    ours = sealing(bytes(size), label=label)
    sent = ours.seal_packet(PLAIN)
    assert ours.open_packet(sent) == PLAIN
    assert len(sent) - len(PLAIN) == ours.packet_overhead_bytes
    assert PLAIN not in sent


def test_packet_is_version_nonce_ciphertext_and_tag() -> None:
    sent = sealing(KEY).seal_packet(PLAIN)
    assert sent[0] == 1
    assert AESGCM(KEY).decrypt(sent[1:13], sent[13:], b"") == PLAIN


def test_sealed_packets_of_a_real_agent_are_opened() -> None:
    ours = sealing(agent_bytes.KEY)
    ping = Ping(1, "ours", ("127.0.0.1", 56078), "agent1")
    assert decode_packet(ours.open_packet(agent_bytes.SEALED_PACKET)) == Packet((ping,), 0)
    [ack] = decode_packet(ours.open_packet(agent_bytes.SEALED_COMPRESSED_PACKET)).messages
    assert isinstance(ack, Ack)
    alive = decode_packet(ours.open_packet(agent_bytes.SEALED_CRC_PACKET)).messages
    assert [each.node for each in alive if isinstance(each, Alive)] == ["ours", "agent1"]
    for packet in (agent_bytes.SEALED_PACKET, agent_bytes.SEALED_CRC_PACKET):
        with pytest.raises(Undecryptable):
            sealing(OTHER).open_packet(packet)


def test_no_nonce_is_used_twice() -> None:
    ours = sealing(KEY)
    assert len({ours.seal_packet(PLAIN)[1:13] for _ in range(1000)}) == 1000


@pytest.mark.parametrize("size", range(34))
def test_padded_packet_of_an_old_agent_is_opened(size: int) -> None:
    assert sealing(KEY).open_packet(sealed_by_an_old_agent(bytes(size))) == bytes(size)


@pytest.mark.parametrize(
    "padded",
    [
        b"",
        b"no whole block\x01",
        bytes(16),
        bytes(15) + b"\x11",
        bytes(13) + b"\x01\x02\x03",
        b"\x20" * 32,
    ],
)
def test_invalid_padding_is_rejected(padded: bytes) -> None:
    with pytest.raises(Undecryptable, match="padded"):
        sealing(KEY).open_packet(padded_as_it_is(padded))


def test_every_key_of_the_ring_decrypts_and_the_first_encrypts() -> None:
    both = sealing(KEY, OTHER)
    assert both.open_packet(sealing(OTHER).seal_packet(PLAIN)) == PLAIN
    assert both.open_packet(sealed_by_an_old_agent(PLAIN, OTHER)) == PLAIN
    assert sealing(KEY).open_packet(both.seal_packet(PLAIN)) == PLAIN
    with pytest.raises(Undecryptable):
        sealing(OTHER).open_packet(both.seal_packet(PLAIN))


def test_ring_that_changes_counts_at_once() -> None:
    ring = KeyRing([KEY])
    ours = Sealing(ring, Encryption.REQUIRED, "", random.Random(1).randbytes)
    old = ours.seal_packet(PLAIN)
    ring.add(OTHER)
    assert ours.open_packet(sealing(OTHER).seal_packet(PLAIN)) == PLAIN
    ring.use(OTHER)
    assert sealing(OTHER).open_packet(ours.seal_packet(PLAIN)) == PLAIN
    assert ours.open_packet(old) == PLAIN
    ring.remove(KEY)
    with pytest.raises(Undecryptable):
        ours.open_packet(old)


@given(st.data())
def test_no_bit_can_be_changed(data: st.DataObject) -> None:
    ours = sealing(KEY, label="blue")
    sent = bytearray(ours.seal_packet(PLAIN))
    bit = data.draw(st.integers(0, 8 * len(sent) - 1))
    sent[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Undecryptable, LabelForeign)):
        ours.open_packet(bytes(sent))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x01",
        bytes(SEALED_BYTES_MIN - 1),
        bytes(SEALED_BYTES_MIN),
        b"\x02" + bytes(60),
        PLAIN,
    ],
)
def test_what_is_not_sealed_is_rejected_where_it_must_be(packet: bytes) -> None:
    with pytest.raises(Undecryptable):
        sealing(KEY).open_packet(packet)


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected_and_nothing_else_escapes(data: bytes) -> None:
    for packet in (data, b"\x00" + data, b"\x01" + data, b"\xf4" + data):
        with suppress(Undecryptable, LabelForeign):
            sealing(KEY, OTHER).open_packet(packet)


def test_version_that_is_not_known_is_rejected_whatever_it_hides() -> None:
    ours = sealing(KEY)
    for packet in (sealed_by_an_old_agent(PLAIN), ours.seal_packet(PLAIN)):
        assert ours.open_packet(packet) == PLAIN
        with pytest.raises(Undecryptable, match="no way that we know"):
            ours.open_packet(b"\x02" + packet[1:])


def test_packet_sealed_under_another_label_is_rejected() -> None:
    foreign = sealing(KEY, label="red").seal_packet(PLAIN)
    with pytest.raises(LabelForeign):
        sealing(KEY, label="blue").open_packet(foreign)
    with pytest.raises(Undecryptable):
        sealing(KEY, label="blue").open_packet(b"\xf4\x04blue" + foreign[5:])


def test_without_keys_only_the_label_is_added() -> None:
    plain = sealing(label="blue")
    assert plain.seal_packet(PLAIN) == b"\xf4\x04blue" + PLAIN
    assert plain.open_packet(b"\xf4\x04blue" + PLAIN) == PLAIN
    assert plain.packet_overhead_bytes == 6
    assert sealing().seal_packet(PLAIN) == PLAIN


def test_cluster_becomes_encrypted_step_by_step_and_no_neighbours_lose_each_other() -> None:
    steps = [
        sealing(),
        sealing(KEY, encryption=Encryption.UNDERSTOOD),
        sealing(KEY, encryption=Encryption.SENT),
        sealing(KEY, encryption=Encryption.REQUIRED),
    ]
    for before, after in itertools.pairwise(steps):
        assert after.open_packet(before.seal_packet(PLAIN)) == PLAIN
        assert before.open_packet(after.seal_packet(PLAIN)) == PLAIN
    with pytest.raises(Undecryptable):
        steps[3].open_packet(steps[1].seal_packet(PLAIN))


def test_stream_is_type_length_and_payload_and_all_of_it_is_authenticated() -> None:
    ours = sealing(KEY, label="blue")
    sent = ours.seal_stream(PLAIN)
    header, sealed = sent[:STREAM_HEADER_BYTES], sent[STREAM_HEADER_BYTES:]
    assert header == b"\x0a" + len(sealed).to_bytes(4, "big")
    assert AESGCM(KEY).decrypt(sealed[1:13], sealed[13:], header + b"blue") == PLAIN
    assert ours.open_stream(header, sealed) == PLAIN
    attempts: list[Callable[[], bytes]] = [
        lambda: ours.open_stream(b"\x0a\x00\x00\x00\x00", sealed),
        lambda: sealing(KEY).open_stream(header, sealed),
        lambda: sealing(OTHER, label="blue").open_stream(header, sealed),
    ]
    for attempt in attempts:
        with pytest.raises(Undecryptable):
            attempt()


def test_stream_of_an_old_agent_is_opened() -> None:
    header = b"\x0a\x00\x00\x00\x2d"
    sealed = sealed_by_an_old_agent(PLAIN, label=header)
    assert len(sealed) == 0x2D
    assert sealing(KEY).open_stream(header, sealed) == PLAIN


def test_errors_say_no_key() -> None:
    with pytest.raises(Undecryptable) as caught:
        sealing(KEY).open_packet(sealing(OTHER).seal_packet(PLAIN))
    assert KEY.hex() not in str(caught.value)
