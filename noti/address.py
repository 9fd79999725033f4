"""Network addresses and how people write them, and where the hub is at one."""

from ipaddress import IPv6Address
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int]
"""Host (name or IP) and port."""

PORT_MAX: Final = 65535
"""TCP and UDP have 16 bits for a port."""

HUB_PATH: Final = "/.well-known/mercure"
"""Where the hub is, below the root of each node's host."""


def format_address(address: Address) -> str:
    """Return `host:port`, with brackets around an IPv6 host (RFC 3986, 3.2.2)."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> Address:
    """Undo `format_address`. An empty host is for those who listen: all interfaces.

    Raises `ValueError` that says what is wrong with the text, to be put after it.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError("is not host:port; write for example 127.0.0.1:8402")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    wrong = "" if bracketed or ":" not in host else "no brackets"
    if bracketed:
        try:
            IPv6Address(host)
        except ValueError:
            wrong = "brackets around what is no IPv6 address"
    if wrong:
        raise ValueError(f"has {wrong}; write an IPv6 address for example as [::1]:8402")
    if not bracketed and not _is_encodable(host):
        raise ValueError("has no name of a host before the port")
    if len(port) > len(str(PORT_MAX)) or int(port) > PORT_MAX:
        raise ValueError(f"has a port above {PORT_MAX}")
    return host, int(port)


def _is_encodable(host: str) -> bool:
    """Whether a host could be looked up: no part is empty, or longer than DNS has it."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in host
