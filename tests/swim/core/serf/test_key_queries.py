"""Changing keys by queries."""

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.swim.core.keyring import KeyRing, format_key
from noti.swim.core.serf.key_queries import (
    KEY_OPERATIONS,
    KeyOperation,
    KeyResponse,
    carry_out,
    decode_response,
    encode_request,
    encode_response,
    truncations,
)

OLD, NEW = bytes(16), bytes(range(32))


def test_operations_have_the_names_of_agents_queries() -> None:
    assert sorted(KEY_OPERATIONS) == [
        b"_serf_install-key",
        b"_serf_list-keys",
        b"_serf_remove-key",
        b"_serf_use-key",
    ]


def test_keys_are_installed_used_removed_and_listed() -> None:
    ring = KeyRing([OLD])
    for operation, key in (
        (KeyOperation.INSTALL, NEW),
        (KeyOperation.USE, NEW),
        (KeyOperation.REMOVE, OLD),
    ):
        assert carry_out(operation, encode_request(key), ring) == KeyResponse(True)
    listed = carry_out(KeyOperation.LIST, b"", ring)
    assert listed == KeyResponse(True, "", (format_key(NEW),), format_key(NEW))
    assert ring.keys == (NEW,)


@pytest.mark.parametrize(
    ("operation", "request_", "reason"),
    [
        (KeyOperation.REMOVE, encode_request(OLD), "use another one first"),
        (KeyOperation.USE, encode_request(NEW), "not installed"),
        (KeyOperation.INSTALL, encode_request(b"short"), "5 bytes"),
        (KeyOperation.INSTALL, b"", "without a key"),
        (KeyOperation.INSTALL, b"\x07garbage", "not a map"),
        (KeyOperation.INSTALL, b"\x07\x80", "0 bytes"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    operation: KeyOperation, request_: bytes, reason: str
) -> None:
    ring = KeyRing([OLD])
    response = carry_out(operation, request_, ring)
    assert not response.done
    assert reason in response.text
    assert ring.keys == (OLD,)


@pytest.mark.parametrize("operation", KeyOperation)
def test_unkeyed_node_answers_as_an_agent_does(operation: KeyOperation) -> None:
    response = carry_out(operation, encode_request(NEW), None)
    assert not response.done
    assert "encryption not enabled" in response.text


def test_answer_is_read_as_it_was_written_and_shows_no_key_in_a_log() -> None:
    response = KeyResponse(True, "fine", (format_key(OLD),), format_key(OLD))
    assert decode_response(encode_response(response)) == response
    assert format_key(OLD) not in repr(response)


def test_answer_of_a_real_agent_with_nil_keys_is_read() -> None:
    fields = {"Keys": None, "Message": "No keyring to modify", "PrimaryKey": "", "Result": False}
    raw = b"\x08" + msgpack.packb(fields, use_bin_type=False)
    assert decode_response(raw) == KeyResponse(False, "No keyring to modify", ())


def test_text_of_another_node_is_one_line_of_bounded_length() -> None:
    raw = encode_response(KeyResponse(False, "a\nb\x1b[2J" + "x" * 10_000))
    text = decode_response(raw).text
    assert text.startswith("a b [2Jx")
    assert len(text) == 300


@pytest.mark.parametrize("raw", [b"", b"\x07\x80", b"\x08", b"\x08\x81\xa4Keys\x01"])
def test_other_answers_are_rejected(raw: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_response(raw)


def test_long_list_is_truncated_key_by_key_and_says_how_many_there_are() -> None:
    full, shorter, *_, shortest = truncations(KeyResponse(True, "", ("a", "b", "c"), "a"))
    assert full.keys == ("a", "b", "c")
    assert (shorter.keys, shorter.text) == (
        ("a", "b"),
        "truncated key list response, showing first 2 of 3 keys",
    )
    assert (shortest.keys, shortest.primary) == ((), "a")
