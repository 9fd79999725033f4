"""The format of Serf's messages."""

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.swim.core.serf.messages import (
    NodeFilter,
    QueryResponse,
    RelayedMessage,
    SerfQuery,
    TagFilter,
    UnknownFilter,
    UserEvent,
    decode_serf,
    encode_serf,
    shown,
)
from tests.fuzz.serf_inputs import MESSAGES

PLACE = ("127.0.0.1", 7946)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_is_read_as_it_was_written(message: object) -> None:
    assert decode_serf(encode_serf(message)) == message  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "golden"),
    [
        (
            UserEvent(1, b"deploy", b"abc123", coalesce=True),
            "03 84 a24343 c3 a54c54696d65 01 a44e616d65 a66465706c6f79 a75061796c6f6164"
            "a6616263313233",
        ),
        (
            QueryResponse(1, 0x36C7E5A9, "beta", True, b""),
            "05 85 a5466c616773 01 a446726f6d a462657461 a24944 ce36c7e5a9 a54c54696d65 01"
            "a75061796c6f6164 c0",
        ),
    ],
)
def test_bytes_of_a_real_agent_decode_and_encode_again(message: object, golden: str) -> None:
    raw = bytes.fromhex(golden)
    assert decode_serf(raw) == message
    assert encode_serf(message) == raw  # type: ignore[arg-type]


def test_unknown_types_and_fields_are_skipped() -> None:
    assert decode_serf(b"\x63rubbish") is None
    raw = b"\x03" + msgpack.packb({"Name": b"x", "New": {"a": [1]}}, use_bin_type=False)
    assert decode_serf(raw) == UserEvent(0, b"x", b"", coalesce=False)


def test_message_behind_a_relay_header_is_kept_as_it_is() -> None:
    inner = encode_serf(QueryResponse(1, 2, "b", False, b"yes")) + b"tail"
    assert decode_serf(encode_serf(RelayedMessage(PLACE, inner))) == RelayedMessage(PLACE, inner)


def test_query_with_a_filter_that_does_not_decode_is_still_a_query() -> None:
    filters = [b"\x00" + msgpack.packb(["a", "b"]), b"\x01\x93", b"\x07", b"", b"\x00\x81"]
    fields = {"Addr": bytes([127, 0, 0, 1]), "Port": 7946, "Filters": filters}
    query = decode_serf(b"\x04" + msgpack.packb(fields, use_bin_type=False))
    assert isinstance(query, SerfQuery)
    assert query.filters == (NodeFilter((b"a", b"b")), *[UnknownFilter()] * 4)


def test_signed_integers_of_newer_agents_are_read() -> None:
    raw = encode_serf(SerfQuery(1, 2, PLACE, "a", b"q", b"", (TagFilter("a", "b"),)))
    port = b"\xa4Port"
    assert port + b"\xcd\x1f\x0a" in raw
    signed = raw.replace(port + b"\xcd\x1f\x0a", port + b"\xd2\x00\x00\x1f\x0a")
    assert decode_serf(signed) == decode_serf(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        b"\x01\x80",
        b"\x04\x80",
        b"\x05\x80",
        b"\x09\x80",
        b"\x09\x81\xa8DestAddr\x80",
        b"\x03\x81\xa5LTime\xcf" + b"\xff" * 8,
        b"\x03\x81\xa4Name\x01",
    ],
)
def test_wrong_messages_are_rejected(raw: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_serf(raw)


def test_any_name_can_be_shown_in_a_log() -> None:
    assert shown(b"caf\xc3\xa9\xff") == "café\\xff"
