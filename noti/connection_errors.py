"""Says why a connection, or a listener, failed: in the words of the system, whoever met it.

Libraries wrap what the system or OpenSSL told them into errors of their own; what counts is inside.
"""

import os
import re
import socket
import ssl
from typing import Final

from noti.certificates.rejections import handshake_rejection
from noti.errors import leaves_of

WRAPPINGS_MAX: Final = 10
"""Of one error; httpx has four, and a chain could be a ring."""

CLOSED: Final = "it closed the connection without an answer"
CUT_SHORT: Final = "it closed the connection before its answer was complete"
NO_TLS: Final = "it speaks plain text, and not TLS"

_NUMBER: Final = re.compile(r"\[Errno (\d+)\]")


def origin_of(error: BaseException) -> OSError | None:
    """Return what the system or OpenSSL said, which is inside an error; None if neither did.

    Of several attempts, the first one counts.
    """
    inner: BaseException | None = error
    for _ in range(WRAPPINGS_MAX):
        if inner is None:
            return None
        inner = leaves_of(inner)[0]
        if isinstance(inner, ssl.SSLError | socket.gaierror):
            return inner
        if isinstance(inner, OSError) and inner.errno:
            return inner
        inner = inner.__cause__ or inner.__context__
    return None


def reason_of(error: BaseException, host: str | None = None) -> str:
    """Return why a connection failed, to be put after a name; `host` is whom it was to reach."""
    match origin_of(error):
        case ssl.SSLError() as rejected:
            rejection = handshake_rejection(rejected)
            return NO_TLS if rejection.reason == "plain" else f"it {rejection}"
        case socket.gaierror() as unknown:
            return f"cannot resolve {host or 'its name'} ({unknown.strerror})"
        case OSError(errno=int(number)) if number > 0:
            # Not `strerror`: asyncio and Trio put the address into it, as a tuple.
            return os.strerror(number)
        case _:
            text = " ".join(str(error).split())
            # asyncio says of several attempts only what each of them would have said.
            numbers = _NUMBER.search(text)
            return os.strerror(int(numbers[1])) if numbers else text or type(error).__name__


def needs_ca(error: BaseException) -> bool:
    """Return whether a certificate was rejected that another file of CAs may accept."""
    origin = origin_of(error)
    return isinstance(origin, ssl.SSLError) and handshake_rejection(origin).reason in (
        "issuer",
        "self_signed",
    )
