"""A certificate authority that makes whatever a test wants, right or wrong.

It is independent of `noti.certificates`, so that our own mistakes do not cancel out.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()
    """Shown along, each the issuer of the one before."""

    @property
    def pem(self) -> bytes:
        shown = (self.certificate, *self.chain)
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in shown)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write `<name>.pem` and `<name>.key`; return both paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.pem)
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return certificate, key


@dataclass(frozen=True)
class Wanted:
    """What a certificate should say; the default is a good node certificate without a name."""

    common_name: str = "test"
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    usages: tuple[x509.ObjectIdentifier, ...] | None = (SERVER, CLIENT)
    """Extended key usage; None for no such extension."""
    is_authority: bool = False
    path_length: int | None = None
    key_usage: tuple[str, ...] | None = None
    """Names of `x509.KeyUsage` parameters; None for what fits."""
    starts: timedelta = field(default=-DAY)
    """From now."""
    ends: timedelta = field(default=60 * DAY)
    claims_key_of: "Issued | None" = None
    """Whose key signed it, as it says itself; None for the truth."""


def issue(wanted: Wanted, by: Issued | None = None) -> Issued:
    """Return what is wanted, signed by `by`, or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)])
    issuer = subject if by is None else by.certificate.subject
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + wanted.starts)
        .not_valid_after(now + wanted.ends)
        .add_extension(
            x509.BasicConstraints(wanted.is_authority, wanted.path_length), critical=True
        )
        .add_extension(_key_usage(wanted), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if by is not None:  # Python 3.13 rejects a certificate without it (RFC 5280, 4.2.1.1)
        signer = wanted.claims_key_of or by
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(issuer_key, critical=False)
    names: list[x509.GeneralName] = [
        *map(x509.DNSName, wanted.dns),
        *map(x509.UniformResourceIdentifier, wanted.uris),
        *(x509.IPAddress(ip_address(ip)) for ip in wanted.ips),
    ]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if wanted.usages is not None and not wanted.is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wanted.usages), critical=False)
    return Issued(builder.sign(key if by is None else by.key, SHA256()), key)


def node(name: str, by: Issued) -> Issued:
    """Return a good certificate of a node."""
    return issue(Wanted(common_name=name, dns=(name,)), by)


def client(name: str, by: Issued) -> Issued:
    """Return a good certificate of a client."""
    uri = f"noti-client://{name}"
    return issue(Wanted(common_name=name, uris=(uri,), usages=(CLIENT,)), by)


def authority(name: str = "test CA", by: Issued | None = None) -> Issued:
    """Return a CA, on its own or below another."""
    return issue(Wanted(common_name=name, is_authority=True), by)


def _key_usage(wanted: Wanted) -> x509.KeyUsage:
    fitting = ("key_cert_sign", "crl_sign") if wanted.is_authority else ("digital_signature",)
    chosen = fitting if wanted.key_usage is None else wanted.key_usage
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{use: use in chosen for use in every})
