"""What nodes and operators make of certificate files: contexts for nodes, for browsers, for NATS.

All are renewed when their files change.
"""

import ssl
from datetime import datetime
from pathlib import Path

from noti.certificates.context import (
    MutualContexts,
    https_context,
    mutual_client_context,
    mutual_contexts,
    nats_context,
)
from noti.certificates.credentials import (
    CertificateUse,
    Credentials,
    load_authorities,
    load_credentials,
)
from noti.certificates.names import name_rejection
from noti.certificates.renewal import Made, Renewed
from noti.errors import ConfigInvalid


def for_nodes(certificate: Path, key: Path, ca: Path, name: str) -> Renewed[MutualContexts]:
    """Return both sides of mutual TLS for the node `name`; raises `ConfigInvalid`."""

    def make() -> Made[MutualContexts]:
        credentials = load_credentials(certificate, key, ca, use=CertificateUse.NODE)
        if name_rejection(credentials.claims, name) is not None:
            raise ConfigInvalid(
                f"{certificate} is for {credentials.claims}, but this node is named {name!r};"
                f" give it its own certificate (noti certs issue {name}), or the other --name"
            )
        return Made(
            mutual_contexts(credentials),
            {certificate: credentials.not_after, ca: _last_end(credentials)},
        )

    return Renewed("rpc", (certificate, key, ca), make)


def for_client(certificate: Path, key: Path, ca: Path) -> Renewed[ssl.SSLContext]:
    """Return the calling side of a client of the nodes; raises `ConfigInvalid`."""

    def make() -> Made[ssl.SSLContext]:
        credentials = load_credentials(certificate, key, ca, use=CertificateUse.CLIENT)
        return Made(
            mutual_client_context(credentials),
            {certificate: credentials.not_after, ca: _last_end(credentials)},
        )

    return Renewed("client", (certificate, key, ca), make)


def for_browsers(certificate: Path, key: Path) -> Renewed[ssl.SSLContext]:
    """Return the side of a web server; raises `ConfigInvalid`."""

    def make() -> Made[ssl.SSLContext]:
        credentials = load_credentials(certificate, key, use=CertificateUse.HTTPS)
        return Made(https_context(credentials), {certificate: credentials.not_after})

    return Renewed("http", (certificate, key), make)


def for_nats(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> Renewed[ssl.SSLContext]:
    """Return the side of a client of NATS; without `ca` it trusts the system's CAs.

    Raises `ConfigInvalid`.
    """

    def make() -> Made[ssl.SSLContext]:
        ends: dict[Path, datetime] = {}
        credentials = None
        authorities = () if ca is None else load_authorities(ca)
        if ca is not None:
            ends[ca] = max(authority.not_valid_after_utc for authority in authorities)
        if certificate is not None and key is not None:
            credentials = load_credentials(certificate, key, use=CertificateUse.NATS)
            ends[certificate] = credentials.not_after
        return Made(nats_context(authorities, credentials), ends)

    files = tuple(file for file in (ca, certificate, key) if file is not None)
    return Renewed("nats", files, make)


def _last_end(credentials: Credentials) -> datetime:
    return max(authority.not_valid_after_utc for authority in credentials.authorities)
