"""Kinds of values that settings have, each with what makes one wrong and what to write instead.

What is wrong is a `ValueError` whose text is a clause about the value.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator

from noti.address import HUB_PATH, Address, parse_address

WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised here, bound only when asked for

GOSSIP_LABEL_BYTES_MAX: Final = 255
"""Its length is a byte in packets."""

_NAME: Final = re.compile(r"[A-Za-z0-9.-]{1,128}")
_NATS_SCHEMES: Final = ("nats", "tls")
_COOKIE_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")


def _address(value: object) -> object:
    if not isinstance(value, str | tuple):
        raise ValueError("is not host:port in quotes; write for example 127.0.0.1:8402")
    return parse_address(value) if isinstance(value, str) else value


def _reachable(address: Address) -> Address:
    if address[0] in WILDCARDS or address[1] == 0:
        raise ValueError("cannot be dialled; name a host and a port above 0")
    return address


def _commas(value: object) -> object:
    """Split text at commas, as environment variables carry lists."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list; write texts in quotes, between [ and ]")
    return value


def node_name(value: str) -> str:
    """Return what may be the name of a node; raises `ValueError` that says what may be."""
    if not _NAME.fullmatch(value):
        raise ValueError("is not a node name; use 1 to 128 letters, digits, dots and hyphens")
    return value


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL with a host, or None: what is raised here may quote a password."""
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable and not re.search(r"\s", url.strip()) else None


def _nats_locations(value: str) -> str:
    for url in value.split(","):
        parts = _split(url)
        if parts is None or parts.scheme not in _NATS_SCHEMES:
            raise ValueError("is not a NATS URL; write for example nats://127.0.0.1:4222")
    return value


def _origin(value: str) -> str:
    parts = _split(value)
    if value != "*" and (parts is None or not parts.scheme or value != value.rstrip("/")):
        raise ValueError("is not an origin; write for example https://app.example.com")
    if value != "*" and "*" in value.replace("://*.", "://", 1):
        raise ValueError("has a * elsewhere than in https://*.example.com")
    return value


def _hub_url(value: str) -> str:
    parts = _split(value)
    if parts is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ValueError("is not a hub's URL; write for example https://example.com")
    return value if parts.path.strip("/") else f"{value.rstrip('/')}{HUB_PATH}"


def _own_origin(value: str) -> str:
    if value == "*":
        raise ValueError("would let any page publish; name each origin")
    return _origin(value)


def _jwks_location(value: str) -> str:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", value):
        return value  # a path
    parts = _split(value)
    schemes = ("http", "https") if parts and is_loopback(parts.hostname or "") else ("https",)
    if parts is None or parts.scheme not in schemes:
        raise ValueError("is not a path or an https:// URL (http:// is for loopback alone)")
    return value


def _cookie_name(value: str) -> str:
    if not _COOKIE_NAME.fullmatch(value):
        raise ValueError("is not a cookie's name; use letters, digits, - and _")
    return value


def _gossip_label(value: str) -> str:
    if len(value.encode()) > GOSSIP_LABEL_BYTES_MAX:
        raise ValueError(f"is too long; make it {GOSSIP_LABEL_BYTES_MAX} bytes or less")
    return value


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


JwtAlgorithmName: TypeAlias = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]

BindAddress: TypeAlias = Annotated[Address, BeforeValidator(_address)]
Seed: TypeAlias = Annotated[BindAddress, AfterValidator(_reachable)]
NodeName: TypeAlias = Annotated[str, AfterValidator(node_name)]
NatsUrls: TypeAlias = Annotated[str, AfterValidator(_nats_locations)]
IpNetwork: TypeAlias = IPv4Network | IPv6Network
Origin: TypeAlias = Annotated[str, AfterValidator(_origin)]
OwnOrigin: TypeAlias = Annotated[str, AfterValidator(_own_origin)]
HubUrl: TypeAlias = Annotated[str, AfterValidator(_hub_url)]
JwksLocation: TypeAlias = Annotated[str, AfterValidator(_jwks_location)]
GossipLabel: TypeAlias = Annotated[str, AfterValidator(_gossip_label)]
CookieName: TypeAlias = Annotated[str, AfterValidator(_cookie_name)]

COMMAS: Final = BeforeValidator(_commas)
"""For lists."""
