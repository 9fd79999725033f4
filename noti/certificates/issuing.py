"""Makes certificates: a CA, and what it issues to nodes and clients; none outlives its CA."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from noti.certificates.profiles import Profile

BACKDATED = timedelta(minutes=5)
"""Clocks of a cluster differ; a new certificate should be valid on all of them."""
COMMON_NAME_MAX = 64
"""RFC 5280, ub-common-name. The common name is for people, so that a longer one may be cut."""

_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_KEY_USAGES = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
}
_EXTENDED_KEY_USAGES = {
    "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True)
class Authority:
    """A CA that can issue."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)


@dataclass(frozen=True)
class Issued:
    """A new certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, for its file."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key in PKCS #8, not encrypted, for a file that only its owner can read."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_authority(
    profile: Profile, name: str, now: datetime, *, days: int | None = None
) -> Issued:
    """Return a new CA called `name`, which issued itself."""
    return _make(profile, name, (), now, days or profile.days, None)


def issue(
    profile: Profile,
    name: str,
    authority: Authority,
    now: datetime,
    *,
    days: int | None = None,
    cluster: str | None = None,
    hosts: Sequence[str] = (),
) -> Issued:
    """Return a certificate for `name`, valid for `days` (or the profile's) or as long as its CA.

    `hosts` are further DNS names and IP addresses, written as `DNS:…` and `IP:…`. Raises
    `ValueError` when one is malformed.
    """
    patterns = [*profile.names, *(profile.names_in_cluster if cluster else ())]
    asked = [pattern.format(name=name, cluster=cluster) for pattern in patterns]
    names = [general_name(text) for text in dict.fromkeys([*asked, *hosts])]
    return _make(profile, name, names, now, days or profile.days, authority)


def general_name(text: str) -> x509.GeneralName:
    """Return `DNS:…`, `URI:…` or `IP:…` as X.509 has it; raises `ValueError`."""
    kind, _, value = text.partition(":")
    match kind:
        case "DNS":
            return x509.DNSName(value)
        case "URI":
            return x509.UniformResourceIdentifier(value)
        case "IP":
            return x509.IPAddress(ip_address(value))
        case _:
            raise ValueError(f"{text!r} is none of DNS:…, URI:…, IP:…")


def _make(
    profile: Profile,
    name: str,
    names: Sequence[x509.GeneralName],
    now: datetime,
    days: int,
    authority: Authority | None,
) -> Issued:
    key = ec.generate_private_key(_CURVES[profile.curve])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:COMMON_NAME_MAX])])
    ends = now + timedelta(days=days)
    if authority is not None:
        ends = min(ends, authority.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
    )
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer_id = own_id if authority is None else _key_id(authority.certificate)
    for extension, critical in _extensions(profile, names, own_id, issuer_id):
        builder = builder.add_extension(extension, critical)
    signer = key if authority is None else authority.key
    # EdDSA brings its own hash.
    hashed = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return Issued(builder.sign(signer, None if hashed else SHA256()), key)


def _key_id(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    """Return the identifier that a CA carries, however it was made, else the usual one."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())


def _extensions(
    profile: Profile,
    names: Sequence[x509.GeneralName],
    own_id: x509.SubjectKeyIdentifier,
    issuer_id: x509.SubjectKeyIdentifier,
) -> Iterable[tuple[x509.ExtensionType, bool]]:
    """Yield the extensions, and whether who does not know one must reject (RFC 5280, 4.2.1)."""
    path_length = profile.path_length if profile.authority else None
    yield x509.BasicConstraints(profile.authority, path_length), True
    used = {_KEY_USAGES[usage] for usage in profile.key_usage}
    chosen = {name: name in used for name in _KEY_USAGES.values()}
    yield x509.KeyUsage(**chosen, encipher_only=False, decipher_only=False), True
    if profile.extended_key_usage:
        usages = [_EXTENDED_KEY_USAGES[usage] for usage in profile.extended_key_usage]
        yield x509.ExtendedKeyUsage(usages), False
    if names:
        yield x509.SubjectAlternativeName(names), False
    yield own_id, False
    yield x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), False
