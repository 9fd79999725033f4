"""Says under which URL a request knows the hub.

Relative topics and patterns are resolved against it, and tokens are meant for it.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from noti.client_key import is_trusted
from noti.history.topics import RESERVED
from noti.http.config import HttpConfig

_HOST: Final = re.compile(r"(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._~-]{1,255})(?::[0-9]{1,5})?")
NO_HOST: Final = "invalid"
"""Stands for a Host header that names none (RFC 2606, 2)."""
_PORTS: Final = {"http": ":80", "https": ":443"}


def hub_url_of(header: Callable[[str], str], scheme: str, peer: str, config: HttpConfig) -> str:
    """Return the hub's URL as the sender of a request knows it, unless the operator has named it.

    `header` returns a header's value by its lower-case name; `scheme` is that of the connection
    from `peer`. A trusted proxy may say that it was another one in front of it.
    """
    if config.public_url is not None:
        return config.public_url
    if config.trusted_proxies:
        forwarded = header("x-forwarded-proto").lower()
        if forwarded in _PORTS and is_trusted(peer, config.trusted_proxies):
            scheme = forwarded
    return _hub_url(scheme, header("host"))


@lru_cache(maxsize=256)
def _hub_url(scheme: str, host: str) -> str:
    host = host.lower()
    if _HOST.fullmatch(host) is None:
        host = NO_HOST
    return f"{scheme}://{host.removesuffix(_PORTS[scheme])}{RESERVED}"
