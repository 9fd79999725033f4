"""Makes the `ssl.SSLContext`s of all connections, from credentials that were checked.

None falls back to an older TLS or to no verification, and no key is written to a file.

Between nodes identity is the name in the certificate (`names.py`), so that no host name is checked
there: nodes connect to IP addresses that change.
"""

import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from noti.certificates.credentials import CertificateUse, Credentials
from noti.certificates.rejections import handshake_rejection
from noti.errors import ConfigInvalid

HTTP_2: Final = "h2"
RAFT_FRAMES: Final = "noti-raft"
"""What may be spoken at the RPC port (ALPN): gRPC, and the frames of Raft without HTTP/2 below."""


@dataclass(frozen=True)
class MutualContexts:
    """Both sides of one node."""

    server: ssl.SSLContext
    """Speaks the frames of Raft with whoever offers them, and HTTP/2 with everybody else."""
    client: ssl.SSLContext
    """For the Raft stream alone: would rather speak its frames than HTTP/2, as older nodes do."""


def mutual_contexts(credentials: Credentials) -> MutualContexts:
    """Return both sides of a node; raises `ConfigInvalid` when OpenSSL does not take the files."""
    client = mutual_client_context(credentials)
    client.set_alpn_protocols([RAFT_FRAMES, HTTP_2])
    return MutualContexts(mutual_server_context(credentials), client)


def mutual_server_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the listening side between nodes: TLS 1.3, and who calls must show a certificate.

    A node first shakes hands with itself, in memory: OpenSSL has the last word about a certificate.
    Raises `ConfigInvalid` when OpenSSL does not take the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A resumed session would not look at the certificate again, which may have expired meanwhile.
    context.num_tickets = 0
    _mutual(context, credentials)
    # In the order of the server, whatever the order of the client.
    context.set_alpn_protocols([RAFT_FRAMES, HTTP_2])
    if credentials.use is CertificateUse.NODE:
        _rehearse(context, credentials)
    return context


def mutual_client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the calling side between nodes, also for clients of them: TLS 1.3, both verified.

    It speaks HTTP/2. Raises `ConfigInvalid` when OpenSSL does not take the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _mutual(context, credentials)


def https_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the side of a web server: TLS 1.2 or 1.3, HTTP/2 or HTTP/1.1 by ALPN.

    Raises `ConfigInvalid` when OpenSSL does not take the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([HTTP_2, "http/1.1"])
    _load_pair(context, credentials)
    return context


def nats_context(
    authorities: Sequence[x509.Certificate], credentials: Credentials | None
) -> ssl.SSLContext:
    """Return the side of a client of NATS: TLS 1.2 or 1.3, host names checked.

    Trusts the system's CAs when `authorities` is empty; shows a certificate if there are
    credentials. Raises `ConfigInvalid` when OpenSSL does not take the files.
    """
    trusted = b"".join(authority.public_bytes(Encoding.DER) for authority in authorities)
    context = ssl.create_default_context(cadata=trusted or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if credentials is not None:
        _load_pair(context, credentials)
    return context


def _mutual(context: ssl.SSLContext, credentials: Credentials) -> ssl.SSLContext:
    assert credentials.authorities_pem, "without a CA everybody would be rejected"
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([HTTP_2])
    try:
        context.load_verify_locations(cadata=credentials.authorities_pem.decode("ascii"))
    except ssl.SSLError as error:
        raise _not_taken("the CA file", credentials, error) from None
    _load_pair(context, credentials)
    return context


def _load_pair(context: ssl.SSLContext, credentials: Credentials) -> None:
    """Load certificate and key from memory: `ssl` wants a path, and files may change meanwhile."""
    with os.fdopen(os.memfd_create("noti-tls", os.MFD_CLOEXEC), "wb") as memory:
        memory.write(credentials.key_pem + b"\n" + credentials.certificate_pem)
        memory.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}")
        except ssl.SSLError as error:
            raise _not_taken(credentials.place, credentials, error) from None


def _rehearse(server: ssl.SSLContext, credentials: Credentials) -> None:
    """Raise unless a node that trusts the same CAs would accept this one, on either side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    calling = mutual_client_context(credentials).wrap_bio(to_client, to_server)
    called = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (calling, called, calling, called):
        try:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        except ssl.SSLError as error:
            raise ConfigInvalid(
                f"{credentials.place} would be rejected by every node that has the same CA file:"
                f" it {handshake_rejection(error)}"
            ) from None


def _not_taken(what: str, credentials: Credentials, error: ssl.SSLError) -> ConfigInvalid:
    reason = (error.reason or "unknown reason").lower().replace("_", " ")
    where = "" if what == credentials.place else f" of {credentials.place}"
    return ConfigInvalid(f"OpenSSL does not take {what}{where}: {reason}; issue it again")
