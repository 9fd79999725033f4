"""Promises of the counting: when there is no room."""

from noti.streams.open_streams import StreamLimit, StreamLimits


def test_room_is_given_back_when_a_stream_ends() -> None:
    limits = StreamLimits(3, 2)
    limits.begin("a")
    limits.begin("a")
    assert limits.reached("a") is StreamLimit.CLIENT
    assert limits.reached("b") is None
    limits.begin("b")
    assert limits.reached("c") is StreamLimit.NODE
    limits.end("a")
    assert limits.reached("a") is None
    assert limits.count == 2


def test_by_client_are_not_remembered_when_nobody_asks_or_nobody_is_left() -> None:
    for per_address in (0, 5):
        limits = StreamLimits(10, per_address)
        limits.begin("a")
        limits.end("a")
        assert not limits.by_client


def test_clients_of_before_are_not_counted_when_they_are_told_apart_from_now_on() -> None:
    limits = StreamLimits(10, 0)
    limits.begin("")
    limits.change(10, 1)
    limits.begin("a")
    assert limits.reached("a") is StreamLimit.CLIENT
    limits.change(10, 0)
    for key in ("", "a"):
        limits.end(key)
    assert (limits.count, len(limits.by_client)) == (0, 0)
