"""LZW: bytes of Go's own encoder come back whole, and no bytes cost more than their limit."""

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid, TooLarge
from noti.swim.core.lzw import SLICE_CODES, expand, expanding
from tests.swim.core.lzw_encoder import (
    CLEAR,
    CODES_MAX,
    END,
    bomb,
    compress,
    pack_codes,
    pack_growing,
)

NO_LIMIT = 2**24


def noise(size: int) -> bytes:
    data, part = b"", hashlib.sha256(b"seed").digest()
    while len(data) < size:
        data += part
        part = hashlib.sha256(part).digest()
    return data[:size]


def text(size: int) -> bytes:
    parts = (f"node-{n * n % 997} 10.0.{n % 256}.{n * 7 % 256} alive;" for n in range(size))
    data = b""
    while len(data) < size:
        data += next(parts).encode()
    return data[:size]


@pytest.mark.parametrize(
    ("data", "compressed"),
    [
        (b"", "000302"),
        (b"a", "00c30404"),
        (b"a" * 16, "00c3081c48b0609880"),
        (b"TOBEORNOTTOBEORTOBEORNOT", "00a93c1152e48914274fa80824687061c183090302"),
    ],
)
def test_what_go_compressed_expands(data: bytes, compressed: str) -> None:
    assert expand(bytes.fromhex(compressed), NO_LIMIT) == data
    assert compress(data).hex() == compressed


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        pytest.param(
            noise(20_000),
            "f63949d0e9d638341d5467492790de495d0c2a6f7b714f53e82641973142d557",
            id="noise",
        ),
        pytest.param(
            text(50_000),
            "a3fe9f699c7613d9e032b6d90207c7ccf75a3820b596e7e7c9f7eae83e19cdde",
            id="text",
        ),
        pytest.param(
            bytes(200_000),
            "415ea43247235c744cb8cc4832ec81d6aa1093d9b07918aef718ca9c28f62f93",
            id="zeros",
        ),
    ],
)
def test_data_that_fills_gos_table_again_and_again_expands(data: bytes, digest: str) -> None:
    compressed = compress(data)
    assert hashlib.sha256(compressed).hexdigest() == digest  # bit for bit what Go makes of it
    assert expand(compressed, NO_LIMIT) == data


@given(st.binary(max_size=3000), st.booleans())
def test_anything_survives_with_and_without_a_clear_code_in_front(data: bytes, clear: bool) -> None:
    assert expand(compress(data, begins_with_clear=clear), NO_LIMIT) == data


def test_code_about_to_be_added_stands_for_the_previous_sequence_and_its_first_byte() -> None:
    assert expand(pack_codes(ord("a"), ord("b"), 259, END), NO_LIMIT) == b"abbb"
    assert expand(pack_codes(ord("a"), 258, 259, END), NO_LIMIT) == b"aaaaaa"


def test_full_table_grows_no_further_and_its_codes_still_count() -> None:
    # Go clears a full table; other encoders need not.
    codes = list(noise(4 * CODES_MAX))
    packed = pack_growing([*codes, CODES_MAX - 1, END])
    expanded = expand(packed, NO_LIMIT)
    last = CODES_MAX - 1 - 258  # the sequence of the last code begins with this byte
    assert expanded == bytes(codes) + bytes(codes[last : last + 2])


def test_clear_codes_anywhere_and_bits_behind_the_end_change_nothing() -> None:
    data = pack_codes(CLEAR, CLEAR, ord("a"), CLEAR, ord("b"), CLEAR, END) + b"\xff\xff"
    assert expand(data, NO_LIMIT) == b"ab"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(pack_codes(258, END), id="first"),
        pytest.param(pack_codes(ord("a"), 260, END), id="ahead"),
        pytest.param(pack_codes(ord("a"), ord("b"), CLEAR, 258, END), id="cleared"),
    ],
)
def test_code_that_stands_for_nothing_is_rejected(data: bytes) -> None:
    with pytest.raises(MessageInvalid, match="stands for nothing"):
        expand(data, NO_LIMIT)


def test_data_cut_off_anywhere_is_rejected() -> None:
    compressed = compress(text(100))
    for size in range(len(compressed) - 1):
        with pytest.raises(MessageInvalid, match="cut off"):
            expand(compressed[:size], NO_LIMIT)


def test_no_more_than_the_limit_is_made_of_anything() -> None:
    data = bomb(1_000_000)
    assert len(data) < 6000
    size = len(expand(data, NO_LIMIT))
    assert 1_000_000 <= size < NO_LIMIT
    assert expand(data, size) == bytes(size)
    with pytest.raises(TooLarge, match=str(size - 1)):
        expand(data, size - 1)


@given(st.binary(max_size=500))
def test_random_bytes_are_rejected_and_nothing_else_escapes(data: bytes) -> None:
    with suppress(MessageInvalid):
        assert len(expand(data, 1000)) <= 1000


def test_long_work_is_done_in_slices() -> None:
    steps = expanding(pack_codes(*[CLEAR] * (10 * SLICE_CODES), END), NO_LIMIT)
    assert sum(1 for _ in steps) == 10
