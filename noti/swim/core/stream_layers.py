"""Takes the layers off what a stream carries: label, encryption, compression.

Enters: bytes in pieces of any size, from anywhere. Leaves: the one message in them.
Never: I/O; a long step; any exception but `MessageInvalid` for bytes from outside.

The side that dials sends the label once, in front; each side then seals its whole message, or does
not, and within that compresses it, or does not. Nothing says how long a plain message is
(`streams`), so what is compressed or sealed is collected first, and the rest is parsed as it comes.
"""

from collections.abc import Generator, Iterator
from typing import Final

import msgpack

from noti.errors import MessageInvalid, Undecryptable
from noti.swim.core.encoding import UNPACK_ERRORS, MessageFields, MessageType, new_unpacker
from noti.swim.core.labels import LABEL_TYPE, label_header, label_header_length, without_label
from noti.swim.core.lzw import expanding
from noti.swim.core.messages import Failure, StreamMessage
from noti.swim.core.packets import compressed_in
from noti.swim.core.sealing import STREAM_HEADER_BYTES, Sealing
from noti.swim.core.streams import STREAM_BYTES_MAX, StreamDecoder, encode_stream

SLICE_BYTES: Final = 16 * 1024
"""Parsed at a time: a millisecond or two."""

_NOT_ENCRYPTED: Final = "the stream is not encrypted, and this node requires that"

_FIRST_BYTES: Final = frozenset(MessageType) | {LABEL_TYPE}


def encode_question(message: StreamMessage, sealing: Sealing) -> bytes:
    """Return what the side that dials sends."""
    encoded = encode_stream(message)
    sealed = sealing.seal_stream(encoded) if sealing.sends_sealed else encoded
    return label_header(sealing.label) + sealed


def encode_answer(message: StreamMessage, sealing: Sealing, *, sealed: bool) -> bytes:
    """Return what the other side sends, sealed if the question was `sealed` and we have a key."""
    encoded = encode_stream(message)
    return sealing.seal_stream(encoded) if sealed and sealing.has_keys else encoded


class StreamReader:
    """Reads the one message of one side of a stream."""

    def __init__(self, sealing: Sealing, *, answer: bool) -> None:
        """`answer`: we have dialled, and read what the other side answers."""
        self._sealing = sealing
        self._answer = answer
        self._buffer = bytearray()
        self._whole = False
        """Whether the buffer holds the rest of the message, as it was sealed or compressed."""
        self._progress = self._read()
        self.is_gossip = False
        """Whether it began as gossip does: then the other side understands a `Failure`."""
        self.sealed = False
        """Whether it is sealed, openable or not."""
        self.invalid_records: list[str] = []
        """Why nodes of a state were skipped; see `StreamDecoder.invalid_records`."""

    def feed(self, data: bytes) -> Iterator[StreamMessage | None]:
        """Take the next piece; yields None after each slice of work, and the message at its end.

        Raises `MessageInvalid`. Not to be called again after it yielded a message or raised.
        """
        self._buffer += data
        while True:
            try:
                waits = next(self._progress)
            except StopIteration as complete:
                yield complete.value
                return
            if waits:
                return
            yield None

    def _read(self) -> Generator[bool | None, None, StreamMessage]:
        """Yields True when it waits for more bytes, and None after a slice of work."""
        yield from self._wait_for(1)
        self.is_gossip = self._buffer[0] in _FIRST_BYTES
        if not self._answer:
            yield from self._take_label()
        yield from self._wait_for(1)
        self.is_gossip = self._buffer[0] in _FIRST_BYTES
        if self._buffer[0] == MessageType.ENCRYPT:
            yield from self._open()
        refused = not self.sealed and not self._sealing.takes_plain
        if refused and not self._answer:
            raise Undecryptable(_NOT_ENCRYPTED)
        yield from self._wait_for(1)
        if self._buffer[0] == MessageType.COMPRESS:
            yield from self._expand()
        message = yield from self._parse()
        # A failure is only logged: whoever does not have our key may say so, in plain text.
        if refused and not isinstance(message, Failure):
            raise Undecryptable(_NOT_ENCRYPTED)
        return message

    def _wait_for(self, count: int) -> Generator[bool | None, None, None]:
        while len(self._buffer) < count:
            if self._whole:
                raise MessageInvalid("a message that is cut off, sealed or compressed as it is")
            yield True

    def _take_label(self) -> Generator[bool | None, None, None]:
        while (length := label_header_length(bytes(self._buffer[:2]))) is None:
            yield from self._wait_for(len(self._buffer) + 1)
        yield from self._wait_for(length)
        without_label(bytes(self._buffer[:length]), self._sealing.label)
        del self._buffer[:length]

    def _open(self) -> Generator[bool | None, None, None]:
        self.sealed = True
        if not self._sealing.has_keys:
            raise Undecryptable("the stream is encrypted, and this node has no gossip key")
        yield from self._wait_for(STREAM_HEADER_BYTES)
        header = bytes(self._buffer[:STREAM_HEADER_BYTES])
        size = int.from_bytes(header[1:], "big")
        if size > STREAM_BYTES_MAX:
            raise MessageInvalid(f"an encrypted stream of {size} bytes")
        yield from self._wait_for(STREAM_HEADER_BYTES + size)
        sealed = bytes(self._buffer[STREAM_HEADER_BYTES : STREAM_HEADER_BYTES + size])
        self._buffer = bytearray(self._sealing.open_stream(header, sealed))
        self._whole = True

    def _expand(self) -> Generator[bool | None, None, None]:
        del self._buffer[:1]
        compressed = compressed_in((yield from self._fields()))
        self._buffer = bytearray((yield from expanding(compressed, STREAM_BYTES_MAX)))
        self._whole = True

    def _fields(self) -> Generator[bool | None, None, MessageFields]:
        unpacker = new_unpacker(STREAM_BYTES_MAX)
        while True:
            try:
                unpacker.feed(bytes(self._buffer))
                self._buffer.clear()
                value = unpacker.unpack()
            except msgpack.OutOfData:
                yield from self._wait_for(1)
                continue
            except UNPACK_ERRORS as error:
                raise MessageInvalid("a compressed stream that is not msgpack") from error
            if not isinstance(value, dict):
                raise MessageInvalid("a compressed stream that is not a map")
            return MessageFields(value)

    def _parse(self) -> Generator[bool | None, None, StreamMessage]:
        decoder = StreamDecoder()
        while True:
            piece = bytes(self._buffer[:SLICE_BYTES])
            del self._buffer[:SLICE_BYTES]
            message = decoder.feed(piece)
            self.invalid_records = decoder.invalid_records
            if message is not None:
                return message
            if self._buffer:
                yield None
            else:
                yield from self._wait_for(1)
