"""The key by which a client is counted: its IPv4 address, or the /64 of its IPv6 address."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

from noti.setting_values import IpNetwork

KEYS_KNOWN_MAX = 4096
"""Addresses whose keys are remembered: clients of one address come again."""

ADDRESS_LENGTH_MAX = 64
"""What is longer is no address: IPv6 takes 45 characters, and the name of an interface 15."""

IPV6_CLIENT_BITS = 64
"""One IPv6 customer has at least a /64, so that single addresses say nothing (RFC 6177)."""


def client_key(peer: str, forwarded_for: str, trusted: Sequence[IpNetwork]) -> str:
    """Return the address by which a client is counted: an IPv4 address, or an IPv6 /64.

    `forwarded_for` is the X-Forwarded-For header. Its entries are believed from the right, as long
    as the one who wrote them is `trusted`: everything further left may be invented.
    """
    address = peer
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
    while hops and is_trusted(address, trusted):
        address = hops.pop()
    return peer if len(address) > ADDRESS_LENGTH_MAX else _key_of(address, peer)


@lru_cache(maxsize=KEYS_KNOWN_MAX)
def _key_of(address: str, peer: str) -> str:
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(IPv6Network((ip, IPV6_CLIENT_BITS), strict=False))
    return str(ip)


def connection_client_key(peer: str, forwarded_for: str, trusted: Sequence[IpNetwork]) -> str:
    """Return the key by which a connection is counted, whatever comes on it later.

    Empty for a trusted proxy that has not said yet for whom it comes: it is many.
    """
    if not forwarded_for and is_trusted(peer, trusted):
        return ""
    return client_key(peer, forwarded_for, trusted)


def is_trusted(address: str, trusted: Sequence[IpNetwork]) -> bool:
    """Return whether a proxy at this address is believed."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(ip in network for network in trusted)
