"""Compresses as Go's `compress/lzw` does: what real agents send, and noti only receives."""

from collections.abc import Iterable

CLEAR, END = 256, 257
CODES_MAX = 4096


class _Bits:
    """Codes of any width, packed from the lowest bit on."""

    def __init__(self) -> None:
        self._bits = self._count = 0
        self.packed = bytearray()

    def put(self, code: int, width: int) -> None:
        self._bits |= code << self._count
        self._count += width
        while self._count >= 8:
            self.packed.append(self._bits & 255)
            self._bits >>= 8
            self._count -= 8

    def flush(self) -> bytes:
        return bytes(self.packed) + (bytes([self._bits]) if self._count else b"")


def pack_codes(*codes: int, width: int = 9) -> bytes:
    """Return codes of one width, whatever they stand for."""
    bits = _Bits()
    for code in codes:
        bits.put(code, width)
    return bits.flush()


def pack_growing(codes: Iterable[int]) -> bytes:
    """Return codes, none of them clear, whose width grows as the table fills, until it is full."""
    bits = _Bits()
    for number, code in enumerate(codes):
        known = min(END + number, CODES_MAX - 1)
        bits.put(code, max(9, known.bit_length()))
    return bits.flush()


def bomb(size: int) -> bytes:
    """Return few codes that stand for at least so many zeros."""
    growing = [0, *range(END + 1, CODES_MAX)]  # 1, 2, 3, … zeros
    longest = len(growing)
    more = max(0, size - sum(range(longest + 1))) // longest + 1
    return pack_growing([*growing, *[CODES_MAX - 1] * more, END])


def compress(data: bytes, *, begins_with_clear: bool = True) -> bytes:
    """Return `data` compressed; old Go versions did not begin with a clear code."""
    bits = _Bits()
    width, highest = 9, END
    codes: dict[bytes, int] = {}
    if begins_with_clear:
        bits.put(CLEAR, width)
    sequence = b""

    def put(sequence: bytes) -> None:
        nonlocal width, highest
        bits.put(sequence[0] if len(sequence) == 1 else codes[sequence], width)
        highest += 1
        if highest == 1 << width:
            width += 1
        if highest == CODES_MAX - 1:
            bits.put(CLEAR, 12)
            width, highest = 9, END
            codes.clear()

    for byte in data:
        longer = sequence + bytes([byte])
        if len(longer) == 1 or longer in codes:
            sequence = longer
            continue
        put(sequence)
        if highest != END:
            codes[longer] = highest
        sequence = longer[-1:]
    if sequence:
        put(sequence)
    bits.put(END, width)
    return bits.flush()
