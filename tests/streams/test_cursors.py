"""Promises of cursors: a place, the same on every node, that tells nothing of what stands there."""

from noti.streams.cursors import cursor_of, seq_in
from tests.http.stage import notification


def test_cursor_names_a_place_and_not_the_event() -> None:
    one = notification(17, topic="secret")
    cursor = cursor_of(one)
    assert seq_in(cursor) == 17
    assert one.id not in cursor
    assert cursor == cursor_of(notification(17, topic="secret"))


def test_another_event_in_the_same_place_has_another_cursor() -> None:
    one = notification(17)
    others = [one._replace(id="x"), one._replace(created_ms=1), one._replace(data="x")]
    assert len({cursor_of(other) for other in [one, *others]}) == 4


def test_what_is_no_cursor_is_none() -> None:
    for text in ["", "id-1", "noti:0-00000000", "noti:1", "noti:1-0000000", "noti:01-00000000"]:
        assert seq_in(text) is None
