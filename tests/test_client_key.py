"""Promises about who is counted as one."""

from ipaddress import ip_network

import pytest

from noti.client_key import client_key, connection_client_key

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
        ("10.0.0.1", "x" * 60_000, "10.0.0.1"),
        ("::ffff:1.2.3.4", "", "1.2.3.4"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::/64"),
        ("fd00::1", "2001:db8:1:2:9::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "", "fe80::/64"),
    ],
)
def test_address_by_which_a_client_is_counted(peer: str, forwarded_for: str, counted: str) -> None:
    assert client_key(peer, forwarded_for, PROXIES) == counted


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "counted"),
    [
        ("1.2.3.4", "", "1.2.3.4"),
        ("10.0.0.1", "", ""),  # nobody knows yet for whom it comes
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::/64"),
    ],
)
def test_connection_of_a_trusted_proxy_is_its_clients_or_nobodys(
    peer: str, forwarded_for: str, counted: str
) -> None:
    assert connection_client_key(peer, forwarded_for, PROXIES) == counted
