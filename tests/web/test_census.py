"""Promises of the counting: who is counted as one, and when there is no room."""

from ipaddress import ip_network

import pytest

from noti.web.census import Census, Full, household
from noti.web.clients import Reason

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "counted"),
    [
        ("1.2.3.4", "", "1.2.3.4"),
        ("1.2.3.4", "9.9.9.9", "1.2.3.4"),  # not a proxy of ours: it may say what it likes
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9, 10.0.0.2", "9.9.9.9"),
        ("10.0.0.1", "10.0.0.2,10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("::ffff:1.2.3.4", "", "1.2.3.4"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::/64"),
        ("fd00::1", "2001:db8:1:2:9::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "", "fe80::/64"),
    ],
)
def test_address_by_which_a_client_is_counted(peer: str, forwarded_for: str, counted: str) -> None:
    assert household(peer, forwarded_for, PROXIES) == counted


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
