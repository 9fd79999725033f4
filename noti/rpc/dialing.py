"""What all who dial a node have in common: how long a silent connection lives, and what went wrong.

Enters: what grpclib, h2 and the system raise. Leaves: one line for a person, a `Refusal`.
Never: a connection; `tls.py` makes them.
"""

import os
import ssl
from dataclasses import replace
from typing import Final

from grpclib.config import Configuration
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.exceptions import ProtocolError as GrpclibError
from h2.exceptions import H2Error

from noti.address import Address, format_address
from noti.certificates.rejections import Refusal, handshake_refusal
from noti.errors import NotiError, Unavailable
from noti.rpc.tls import PeerChannel

CONFIG: Final = Configuration(
    # HTTP/2 pings find a dead host, which sends no reset, within 10 s, also on a silent stream.
    # (Raft's own timeouts elect without waiting for this; it frees the connection.)
    _keepalive_time=5.0,
    _keepalive_timeout=5.0,
    _keepalive_permit_without_calls=True,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=4.0,
)

SERVER_CONFIG: Final = replace(CONFIG, _keepalive_timeout=20.0)
"""Who is called has more patience: nobody waits for it to notice, and a publisher that is busy, or
on a slow line, answers late (20 s is gRPC's default)."""

FOREIGN_ERRORS: Final = (
    GRPCError,
    GrpclibError,
    StreamTerminatedError,
    H2Error,
    OSError,
    Unavailable,
)


def refusal_in(channel: PeerChannel, error: Exception) -> Refusal | None:
    """Return what TLS has to do with an error, if anything."""
    if channel.wants_tls:
        return Refusal("refused_us", "takes TLS only, and this node has none; set --tls-cert")
    broken = error if isinstance(error, ssl.SSLError) else channel.failure
    if not isinstance(broken, ssl.SSLError):
        return None
    refusal = handshake_refusal(broken)
    if refusal.reason in ("protocol", "plain"):
        return Refusal(refusal.reason, f"{refusal.text}; has it no --tls-cert?")
    return refusal


def describe(to: Address, error: Exception) -> str:
    """Return what went wrong on the way to a node, as one line."""
    where = format_address(to)
    if isinstance(error, GRPCError):
        return f"{where} refused: {error.message or error.status.name}"
    if isinstance(error, OSError) and error.strerror:
        # asyncio has words of its own for errors of the system; names have numbers below 0.
        number = error.errno or 0
        return f"cannot reach {where}: {os.strerror(number) if number > 0 else error.strerror}"
    reason = str(error) if isinstance(error, NotiError) else f"{type(error).__name__}: {error}"
    return f"cannot reach {where}: {reason}"
