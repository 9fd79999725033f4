"""The names in a certificate, and whether a peer may use the name that it claims.

Chain and validity were checked by TLS before. Names in the subject's common name (RFC 6125, 6.4.4),
wildcards, host names and addresses do not count here.

A node is named by `DNS:<node name>`, or by `URI:noti://<cluster id>/<node name>` for one cluster
only. A certificate that has such a URI is bound: then its DNS names are host names and nothing
more. A client (`noti status`, probes, an operator) is named by `URI:noti-client://<name>`.
Usages must fit: a node serves and calls, a client only calls.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from noti.certificates.decoding import decode_certificate
from noti.certificates.rejections import Rejection
from noti.errors import MessageInvalid

Profile: TypeAlias = Literal["node", "client"]

NAME = re.compile(r"[A-Za-z0-9.-]{1,128}")
"""As the setting `name` allows; anything else in a certificate is no name of a node."""
_NODE_URI = re.compile(rf"noti://({NAME.pattern})/({NAME.pattern})")
_CLIENT_URI = re.compile(rf"noti-client://({NAME.pattern})")


@dataclass(frozen=True, slots=True)
class NodeName:
    """One node that a certificate names."""

    name: str
    cluster: str | None = None
    """The only cluster in which the name counts; None for any."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The names and usages in a certificate."""

    nodes: tuple[NodeName, ...]
    clients: tuple[str, ...]
    hosts: tuple[str, ...]
    """All DNS names and IP addresses, for HTTPS and for people."""
    may_serve: bool
    """Its extended key usage has serverAuth; a certificate without the extension has neither."""
    may_call: bool
    """Its extended key usage has clientAuth."""
    not_before: datetime
    not_after: datetime
    """Both with time zone."""

    @property
    def node_names(self) -> frozenset[str]:
        """The nodes named, of whatever cluster."""
        return frozenset(node.name for node in self.nodes)

    @property
    def client_names(self) -> frozenset[str]:
        """The clients named."""
        return frozenset(self.clients)

    @property
    def profile(self) -> Profile | None:
        """What the holder may be: a node, a client, or (None) neither."""
        if self.nodes and self.may_serve and self.may_call:
            return "node"
        if self.clients and self.may_call and not self.may_serve:
            return "client"
        return None

    def __str__(self) -> str:
        named = list(dict.fromkeys(node.name for node in self.nodes)) or list(self.clients)
        if not named:
            return "no node or client"
        also = f" (also {', '.join(named[1:])})" if named[1:] else ""
        return f"{'node' if self.nodes else 'client'} {named[0]}{also}"


def claims(der: bytes) -> Claims:
    """Return what a certificate in DER claims; raises `MessageInvalid` when it does not decode.

    Made for `ssl_object.getpeercert(binary_form=True)`.
    """
    try:
        return claims_of(decode_certificate(der))
    except ValueError as error:
        raise MessageInvalid(f"the certificate does not decode: {error}") from None


def claims_of(certificate: x509.Certificate) -> Claims:
    """Return what a certificate claims that came out of `decode_certificate`."""
    dns: list[str] = []
    uris: list[str] = []
    addresses: list[str] = []
    for name in alternative_names(certificate):
        match name:
            case x509.DNSName():
                dns.append(name.value)
            case x509.UniformResourceIdentifier():
                uris.append(name.value)
            case x509.IPAddress():
                addresses.append(str(name.value))
            case _:
                pass
    usages = extended_key_usages(certificate)
    return Claims(
        nodes=tuple(_nodes(dns, uris)),
        clients=tuple(match[1] for uri in uris if (match := _CLIENT_URI.fullmatch(uri))),
        hosts=(*dns, *addresses),
        may_serve=ExtendedKeyUsageOID.SERVER_AUTH in usages,
        may_call=ExtendedKeyUsageOID.CLIENT_AUTH in usages,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def name_rejection(
    claims: Claims, claimed_name: str, cluster: str | None = None
) -> Rejection | None:
    """Return why a peer that claims to be node `claimed_name` is rejected, or None if it is not.

    `cluster` is the id of our cluster; None or empty while this node does not know it.
    """
    if not claims.nodes:
        if claims.clients:
            return Rejection(
                "usage",
                f"claims to be node {claimed_name!r}, but its certificate is for {claims}: a client"
                " may read status and nothing else; issue a node certificate",
            )
        return Rejection(
            "unnamed",
            f"claims to be node {claimed_name!r}, but its certificate names no node;"
            f" it needs DNS:{claimed_name}",
        )
    if not (claims.may_serve and claims.may_call):
        lacking = "clientAuth" if claims.may_serve else "serverAuth"
        return Rejection(
            "usage",
            f"the certificate of {claims} lacks the extended key usage {lacking}; a node needs"
            " serverAuth and clientAuth",
        )
    if claimed_name not in claims.node_names:
        return Rejection(
            "name", f"claims to be node {claimed_name!r}, but its certificate is for {claims}"
        )
    clusters = {node.cluster for node in claims.nodes if node.name == claimed_name}
    if cluster and None not in clusters and cluster not in clusters:
        named = ", ".join(sorted(filter(None, clusters)))
        return Rejection(
            "cluster",
            f"the certificate of {claims} is for cluster {named}, this is cluster {cluster}",
        )
    return None


def _nodes(dns: Iterable[str], uris: Iterable[str]) -> list[NodeName]:
    bound = [NodeName(match[2], match[1]) for uri in uris if (match := _NODE_URI.fullmatch(uri))]
    return bound or [NodeName(name) for name in dns if NAME.fullmatch(name)]


def alternative_names(
    holder: x509.Certificate | x509.CertificateSigningRequest,
) -> Iterable[x509.GeneralName]:
    """Return the subject alternative names, none if the extension is missing."""
    try:
        return holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()


def extended_key_usages(certificate: x509.Certificate) -> Iterable[x509.ObjectIdentifier]:
    """Return the extended key usages, none if the extension is missing."""
    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()


def name_text(name: x509.GeneralName) -> str:
    """Return an alternative name as OpenSSL writes it: `DNS:…`, `URI:…`, `IP:…`, `email:…`."""
    match name:
        case x509.DNSName():
            return f"DNS:{name.value}"
        case x509.UniformResourceIdentifier():
            return f"URI:{name.value}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.RFC822Name():
            return f"email:{name.value}"
        case _:
            return type(name).__name__
