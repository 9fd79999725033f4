"""Expands what others have compressed, bit for bit as Go's `compress/lzw` does it.

Enters: compressed bytes from anywhere. Leaves: the bytes that they stand for.
Never: compression, which is optional for senders; more output than asked for; a long step.

Codes are packed from the lowest bit on. 256 of them are bytes, then come "clear" and "end", and
each later one stands for an earlier sequence and one byte more. They begin with 9 bits and take one
more, up to 12, as soon as the next one would not fit. Source: Welch 1984, in the variant of GIF.
"""

from collections.abc import Generator
from typing import Final

from noti.errors import MessageInvalid, TooLarge

_CLEAR: Final = 256
_END: Final = 257
_WIDTH_FIRST: Final = 9
_WIDTH_LAST: Final = 12

_LITERALS: Final = [*(bytes([byte]) for byte in range(256)), b"", b""]
"""The sequences at the beginning; clear and end stand for none."""

SLICE_CODES: Final = 2048
"""A pause after so many codes: they take about a millisecond."""


def expand(data: bytes, bytes_max: int) -> bytes:
    """Return what `data` stands for; raises `MessageInvalid`, `TooLarge` beyond `bytes_max`."""
    expansion = expanding(data, bytes_max)
    while True:
        try:
            next(expansion)
        except StopIteration as complete:
            expanded: bytes = complete.value
            return expanded


def expanding(data: bytes, bytes_max: int) -> Generator[None, None, bytes]:
    """Do what `expand` does, with a pause (`yield`) after each `SLICE_CODES` codes."""
    output = bytearray()
    sequences = _LITERALS.copy()
    previous = b""
    width = _WIDTH_FIRST
    bits = bits_count = position = codes = 0
    while True:
        while bits_count < width:
            if position == len(data):
                raise MessageInvalid("compressed data that is cut off")
            bits |= data[position] << bits_count
            position += 1
            bits_count += 8
        code = bits & ((1 << width) - 1)
        bits >>= width
        bits_count -= width
        codes += 1
        if codes % SLICE_CODES == 0:
            yield
        if code == _END:
            return bytes(output)
        if code == _CLEAR:
            del sequences[len(_LITERALS) :]
            width, previous = _WIDTH_FIRST, b""
            continue
        if code < len(sequences):
            sequence = sequences[code]
        elif code == len(sequences) and previous:
            sequence = previous + previous[:1]  # it stands for itself: the one about to be added
        else:
            raise MessageInvalid("compressed data with a code that stands for nothing")
        output += sequence
        if len(output) > bytes_max:
            raise TooLarge(f"compressed data that stands for more than {bytes_max} bytes")
        if previous and len(sequences) < 1 << _WIDTH_LAST:
            sequences.append(previous + sequence[:1])
        previous = sequence
        # The next sequence is added with the next code, which must be able to stand for it.
        if len(sequences) == 1 << width and width < _WIDTH_LAST:
            width += 1
