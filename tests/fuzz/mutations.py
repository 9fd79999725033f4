"""Makes wrong bytes of right ones.

Enters: examples. Leaves: a hypothesis strategy of bytes that are nearly, or not at all, like them.
Never: randomness of its own; what fails shrinks to the smallest case.
"""

from collections.abc import Sequence

from hypothesis import strategies as st

INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\0" * 8,
    b"\xff" * 7 + b"\x7f",
    b"\xc1",  # no msgpack type
    b"\xdd\xff\xff\xff\xff",  # a msgpack array of 2**32 - 1
    b"\xcf" + b"\xff" * 8,  # a msgpack integer of 2**64 - 1
    b"\xd3\x80" + b"\0" * 7,  # one of -2**63
    b"\xc0",
    b"\xcb\x7f\xf8" + b"\0" * 6,  # not a number
    b"\xff" * 9 + b"\x01",  # the longest varint
)


@st.composite
def mutated(draw: st.DrawFn, examples: Sequence[bytes]) -> bytes:
    """Return an example after some changes; sometimes bytes that never were one."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=64))
    data = draw(st.sampled_from(examples))
    for _ in range(draw(st.integers(1, 4))):
        data = _change(draw, data, examples)
    return data


def _change(draw: st.DrawFn, data: bytes, examples: Sequence[bytes]) -> bytes:
    at = draw(st.integers(0, len(data)))
    to = draw(st.integers(at, min(len(data), at + 16)))
    match draw(st.integers(0, 6)):
        case 0 if at < len(data):
            flipped = data[at] ^ (1 << draw(st.integers(0, 7)))
            return data[:at] + bytes([flipped]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[to:]
        case 3:
            return data[:at] + data[at:to] * draw(st.integers(2, 5)) + data[to:]
        case 4:
            return data[:at] + draw(st.sampled_from(INTERESTING)) + data[to:]
        case 5:
            other = draw(st.sampled_from(examples))
            return data[:at] + other[draw(st.integers(0, len(other))) :]
        case _:
            return data[:at] + draw(st.binary(max_size=8)) + data[to:]
