"""What a client of a WebSocket may say: Autobahn's cases 1 to 7, 9 and 10, in our words.

Where an echo is expected there, the connection goes on here, as messages are of no use.
"""

from dataclasses import dataclass

from noti.streams.websocket_reader import MESSAGE_BYTES_MAX
from tests.streams.websocket_clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_with,
    masked,
)

PROTOCOL, UTF_8, TOO_LONG = 1002, 1007, 1009


@dataclass(frozen=True)
class Case:
    """One client."""

    name: str
    said: bytes
    pongs: tuple[bytes, ...] = ()
    close: int | None = None
    """The code of the answer; None while the connection goes on."""
    invalid: bool = True
    """Whether that is for a fault of the client's."""
    whole: bool = True
    """Whether the client has finished."""


def _messages() -> list[Case]:
    """1: messages of all lengths at which the form of a frame changes."""
    sizes = (0, 125, 126, 127, 128, 65_535, 65_536)
    return [
        Case(f"1.{opcode}-message-of-{size}", masked(opcode, b"*" * size))
        for opcode in (TEXT, BINARY)
        for size in sizes
    ]


def _pings() -> list[Case]:
    """2: pings and pongs."""
    long = bytes(range(125))
    ten = tuple(b"payload-%d" % number for number in range(10))
    return [
        Case("2.1-ping-of-nothing", masked(PING), (b"",)),
        Case("2.2-ping-of-text", masked(PING, b"Hello"), (b"Hello",)),
        Case(
            "2.3-ping-of-bytes", masked(PING, b"\x00\xff\xfe\xfd\x00"), (b"\x00\xff\xfe\xfd\x00",)
        ),
        Case("2.4-ping-of-125", masked(PING, long), (long,)),
        Case("2.5-ping-of-126", masked(PING, long + b"a"), close=PROTOCOL),
        Case("2.7-pong-of-nothing", masked(PONG)),
        Case("2.8-pong-nobody-asked-for", masked(PONG, b"Hello")),
        Case("2.9-pong-then-ping", masked(PONG, b"a") + masked(PING, b"b"), (b"b",)),
        Case("2.10-ten-pings", b"".join(masked(PING, one) for one in ten), ten),
    ]


def _reserved() -> list[Case]:
    """3 and 4: reserved bits and opcodes; and the mask."""
    bits = [
        Case(
            f"3-reserved-bits-{bits}-in-{opcode}",
            masked(opcode, b"", reserved=bits),
            close=PROTOCOL,
        )
        for bits in range(1, 8)
        for opcode in (TEXT, BINARY, PING, CLOSE)
    ]
    after = [
        Case(
            "3.4-reserved-after-a-ping",
            masked(TEXT, b"a") + masked(PING, b"b") + masked(TEXT, b"c", reserved=4),
            (b"b",),
            close=PROTOCOL,
        )
    ]
    codes = [
        Case(f"4-reserved-opcode-{opcode}", masked(opcode, payload), close=PROTOCOL)
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        for payload in (b"", b"reserved")
    ]
    masks = [
        Case(f"5.1-unmasked-{opcode}", masked(opcode, b"a", mask=False), close=PROTOCOL)
        for opcode in (TEXT, PING, PONG)
    ]
    return [*bits, *after, *codes, *masks]


def _fragments() -> list[Case]:
    """5: messages in fragments."""
    begin, end = masked(TEXT, b"fragment1", final=False), masked(CONTINUATION, b"fragment2")
    more = masked(CONTINUATION, b"fragment", final=False)
    ping = masked(PING, b"between")
    between = (b"between",)
    return [
        Case("5.1-ping-in-fragments", masked(PING, b"a", final=False), close=PROTOCOL),
        Case("5.2-pong-in-fragments", masked(PONG, b"a", final=False), close=PROTOCOL),
        Case("5.2-close-in-fragments", masked(CLOSE, b"", final=False), close=PROTOCOL),
        Case("5.3-two-fragments", begin + end),
        Case("5.6-ping-between-fragments", begin + ping + end, between),
        Case("5.6-fragments-without-end", begin + ping + more, between, whole=False),
        Case("5.9-continuation-of-nothing", end + masked(TEXT, b"a"), close=PROTOCOL),
        Case("5.12-continuation-of-nothing-to-be-continued", more, close=PROTOCOL),
        Case("5.15-continuation-after-the-end", begin + end + more, close=PROTOCOL),
        Case("5.18-message-within-a-message", begin + masked(TEXT, b"b"), close=PROTOCOL),
        Case("5.18-bytes-within-a-text", begin + masked(BINARY, b"b"), close=PROTOCOL),
        Case("5.19-many-fragments", begin + more + ping + more + more + ping + end, between * 2),
        Case("6.1-fragments-of-nothing", masked(TEXT, final=False) + masked(CONTINUATION)),
    ]


_UTF_8 = "κόσμε-µ@ßöäüàá-€-𝄞".encode()
_NO_UTF_8 = {
    "6.3-surrogate": b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited",
    "6.4-beyond-unicode": b"\xce\xba\xf4\x90\x80\x80edited",
    "6.6-cut-off": b"\xce\xba\xe1\xbd",
    "6.10-five-bytes": b"\xf8\x88\x80\x80\x80",
    "6.12-lonely-continuation": b"\x80",
    "6.14-lonely-beginning": b"\xc0 \xc1 \xff",
    "6.18-overlong-slash": b"\xc0\xaf",
    "6.19-overlong-three": b"\xe0\x80\xaf",
    "6.20-overlong-zero": b"\xf0\x80\x80\x80",
    "6.21-surrogate-pair": b"\xed\xa0\x80\xed\xb0\x80",
}
_EDGES = (0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x10FFFF)


def _texts() -> list[Case]:
    """6: what is UTF-8, and what is not."""
    halves = masked(TEXT, _UTF_8[:3], final=False) + masked(CONTINUATION, _UTF_8[3:])
    by_bytes = masked(TEXT, _UTF_8[:1], final=False)
    for byte in _UTF_8[1:]:
        by_bytes += masked(CONTINUATION, bytes((byte,)), final=False)
    good = [
        Case("6.2-text", masked(TEXT, _UTF_8)),
        Case("6.2-character-in-two-fragments", halves),
        Case("6.2-byte-by-byte", by_bytes + masked(CONTINUATION)),
        *(Case(f"6.5-character-{code:x}", masked(TEXT, chr(code).encode())) for code in _EDGES),
    ]
    bad = [Case(name, masked(TEXT, text), close=UTF_8) for name, text in _NO_UTF_8.items()]
    in_bytes = [Case(f"{name}-is-bytes", masked(BINARY, text)) for name, text in _NO_UTF_8.items()]
    early = Case(
        "6.4-before-the-message-ends",
        masked(TEXT, _NO_UTF_8["6.4-beyond-unicode"], final=False),
        close=UTF_8,
    )
    return [*good, *bad, *in_bytes, early]


def _closes() -> list[Case]:
    """7: how a client may close, and how not."""
    good = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    bad = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    begin = masked(TEXT, b"fragment", final=False)
    return [
        Case(
            "7.1-message-then-close",
            masked(TEXT, b"a") + close_with(1000),
            close=1000,
            invalid=False,
        ),
        Case("7.1-close-twice", close_with(1000) * 2, close=1000, invalid=False),
        Case("7.1-ping-after-close", close_with(1000) + masked(PING), close=1000, invalid=False),
        Case("7.1-close-in-a-message", begin + close_with(1000), close=1000, invalid=False),
        Case("7.3-close-of-one-byte", masked(CLOSE, b"a"), close=PROTOCOL),
        Case("7.3-close-of-125", close_with(1000, b"*" * 123), close=1000, invalid=False),
        Case("7.3-close-of-126", close_with(1000, b"*" * 124), close=PROTOCOL),
        Case("7.5-reason-is-no-utf-8", close_with(1000, b"\xce\xba\xed\xa0\x80"), close=UTF_8),
        *(Case(f"7.7-code-{code}", close_with(code), close=code, invalid=False) for code in good),
        *(Case(f"7.9-code-{code}", close_with(code), close=PROTOCOL) for code in bad),
    ]


def _long_messages() -> list[Case]:
    """9: longer ones than there is use for."""
    half = b"*" * (MESSAGE_BYTES_MAX // 2)
    fragments = masked(TEXT, half, final=False) + masked(CONTINUATION, half, final=False)
    return [
        Case("9.1-text", masked(TEXT, b"*" * (MESSAGE_BYTES_MAX + 1)), close=TOO_LONG),
        Case("9.2-bytes", masked(BINARY, b"*" * 1_000_000), close=TOO_LONG),
        Case("9.3-fragments", fragments + masked(CONTINUATION, b"*"), close=TOO_LONG),
        Case("9.3-as-long-as-may-be", fragments + masked(CONTINUATION)),
    ]


CASES = [
    *_messages(),
    *_pings(),
    *_reserved(),
    *_fragments(),
    *_texts(),
    *_closes(),
    *_long_messages(),
]
