"""Promises of the counting: when there is no room."""

from noti.streams.clients import Reason
from noti.streams.limits import Census, Full


def test_room_is_given_back_when_a_stream_ends() -> None:
    census = Census(3, 2)
    census.enter("a")
    census.enter("a")
    assert census.full("a") is Full.ADDRESS
    assert census.full("b") is None
    census.enter("b")
    assert census.full("c") is Full.NODE
    census.leave("a", Reason.GONE)
    assert census.full("a") is None
    assert census.count == 2


def test_addresses_are_not_remembered_when_nobody_asks_or_nobody_is_left() -> None:
    for per_address in (0, 5):
        census = Census(10, per_address)
        census.enter("a")
        census.leave("a", Reason.GONE)
        assert not census._addresses
