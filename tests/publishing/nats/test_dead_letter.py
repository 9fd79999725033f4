"""What a dead letter says of the message that it is a copy of."""

import pytest

from noti.errors import MessageInvalid
from noti.publishing.nats.dead_letter import parse_headers, stored_letter

WHY = {
    "Noti-Dead-Letter-Reason": "the payload is no UTF-8 text",
    "Noti-Dead-Letter-Stream": "jobs",
    "Noti-Dead-Letter-Sequence": "7",
    "Noti-Dead-Letter-Subject": "jobs.noti.x",
    "Noti-Dead-Letter-Time": "2026-01-01T00:00:00Z",
    "Nats-Msg-Id": "jobs@2026-7",
}


def block(*lines: tuple[str, str]) -> bytes:
    return "".join(["NATS/1.0\r\n", *(f"{k}: {v}\r\n" for k, v in lines), "\r\n"]).encode()


def test_letter_says_what_it_is_a_copy_of() -> None:
    letter = stored_letter(3, block(*WHY.items()), b"\xff")
    assert (letter.place, letter.stream, letter.sequence) == (3, "jobs", 7)
    assert (letter.subject, letter.time) == ("jobs.noti.x", "2026-01-01T00:00:00Z")
    assert letter.reason == "the payload is no UTF-8 text"
    assert (letter.payload, letter.size_bytes, letter.truncated_bytes) == (b"\xff", 1, None)


def test_message_is_published_again_with_its_own_headers_and_id() -> None:
    """Also those that it has twice; not those that hold for its first publication alone."""
    own = (
        ("Noti-Topic", "a"),
        ("X", "1"),
        ("Noti-Topic", "b"),
        ("Nats-Expected-Last-Sequence", "6"),
        ("Noti-Dead-Letter-Id", "order-17"),
    )
    letter = stored_letter(3, block(*own, *WHY.items()), b"")
    kept = (("Noti-Topic", "a"), ("X", "1"), ("Noti-Topic", "b"))
    assert letter.headers_again() == (("Nats-Msg-Id", "order-17"), *kept)
    assert letter.headers_again(new_id=True) == (("Nats-Msg-Id", "jobs@2026-7"), *kept)


def test_message_without_an_id_gets_that_of_its_copy() -> None:
    letter = stored_letter(3, block(*WHY.items()), b"")
    assert letter.headers_again() == (("Nats-Msg-Id", "jobs@2026-7"),)


def test_names_of_headers_count_in_any_case() -> None:
    lines = [(name.lower(), value) for name, value in WHY.items()]
    assert stored_letter(3, block(*lines), b"").headers_again() == (("Nats-Msg-Id", "jobs@2026-7"),)


def test_size_of_a_payload_that_was_not_copied_is_known() -> None:
    letter = stored_letter(3, block(*WHY.items(), ("Noti-Dead-Letter-Truncated", "9000000")), b"")
    assert (letter.size_bytes, letter.truncated_bytes) == (9_000_000, 9_000_000)


@pytest.mark.parametrize("name", sorted(WHY.keys() - {"Nats-Msg-Id"}))
def test_message_without_a_reason_to_be_there_is_no_dead_letter(name: str) -> None:
    lines = [line for line in WHY.items() if line[0] != name]
    with pytest.raises(MessageInvalid, match=name):
        stored_letter(3, block(*lines), b"")


@pytest.mark.parametrize("digits", ["", "-1", "x", "²", "1" * 30])
def test_number_that_is_none_is_refused(digits: str) -> None:
    with pytest.raises(MessageInvalid, match="Sequence"):
        stored_letter(3, block(*(WHY | {"Noti-Dead-Letter-Sequence": digits}).items()), b"")


def test_lines_that_are_no_headers_are_left_out() -> None:
    assert parse_headers(b"NATS/1.0\r\nA:1\r\nno colon\r\n: 2\r\n\xff: 3\r\nB:\r\n\r\n") == (
        ("A", "1"),
        ("B", ""),
    )
