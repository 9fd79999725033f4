"""Describes in plain words what a PEM file holds; of a private key no more than its type."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from noti.certificates import pem
from noti.certificates.credentials import is_authority, is_issued_by, serial_text
from noti.certificates.decoding import decode_certificate
from noti.certificates.expiry import expiry_notice, moment
from noti.certificates.names import (
    alternative_names,
    claims_of,
    extended_key_usages,
    name_text,
)

REQUEST_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_USAGES = {
    "1.3.6.1.5.5.7.3.1": "TLS server (serverAuth)",
    "1.3.6.1.5.5.7.3.2": "TLS client (clientAuth)",
    "1.3.6.1.5.5.7.3.3": "code signing",
    "1.3.6.1.5.5.7.3.4": "e-mail",
    "2.5.29.37.0": "anything",
}


@dataclass(frozen=True, slots=True)
class Description:
    """What one block is."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    """Name and value, in the order to be shown."""


def describe(content: bytes, path: Path, now: datetime) -> list[Description]:
    """Return what each block of a PEM file is; raises `ConfigInvalid` when the file is not PEM."""
    return [_description(block, now) for block in pem.blocks(content, path)]


def key_type(key: object) -> str:
    """Return the type of a public or private key, such as `ECDSA P-256`."""
    match key:
        case ec.EllipticCurvePublicKey() | ec.EllipticCurvePrivateKey():
            return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
        case rsa.RSAPublicKey() | rsa.RSAPrivateKey():
            return f"RSA {key.key_size} bits"
        case ed25519.Ed25519PublicKey() | ed25519.Ed25519PrivateKey():
            return "Ed25519"
        case ed448.Ed448PublicKey() | ed448.Ed448PrivateKey():
            return "Ed448"
        case _:
            return type(key).__name__.strip("_").removesuffix("Key")


def printable(text: str) -> str:
    """Return text without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _description(block: pem.Block, now: datetime) -> Description:
    try:
        if block.is_certificate:
            return _certificate(decode_certificate(block.pem), now)
        if block.is_encrypted:
            return Description("private key, encrypted", (("remark", "a node cannot use it"),))
        if block.is_key:
            key = load_pem_private_key(block.pem, password=None)
            return Description("private key", (("type", key_type(key)),))
        if block.label in REQUEST_LABELS:
            return _request(x509.load_pem_x509_csr(block.pem))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.UnsupportedGeneralNameType) as error:
        # What is wrong with a key is not shown: the words might quote it.
        problem = "it does not decode" if block.is_key else f"it does not decode: {error}"
        return Description(block.label.lower(), (("problem", printable(problem)),))
    return Description(f"{block.label.lower()}, which noti does not use")


def _certificate(certificate: x509.Certificate, now: datetime) -> Description:
    named = claims_of(certificate)
    if is_authority(certificate):
        title = "certificate of a CA"
    elif named.profile is None:
        title = "certificate, of neither a node nor a client"
    else:
        title = f"certificate of {named}"
    facts: list[tuple[str, str]] = [("subject", certificate.subject.rfc4514_string())]
    if names := [name_text(name) for name in alternative_names(certificate)]:
        facts.append(("names", ", ".join(names)))
    clusters = sorted({node.cluster for node in named.nodes if node.cluster})
    if clusters:
        facts.append(("counts in", f"cluster {', '.join(clusters)} only"))
    facts += [
        ("usage", ", ".join(_usages(certificate)) or "none stated"),
        ("valid", _validity(certificate, now)),
        ("issued by", _issuer(certificate)),
        ("key", key_type(certificate.public_key())),
        ("serial", serial_text(certificate)),
        ("SHA-256", certificate.fingerprint(SHA256()).hex(":").upper()),
    ]
    return Description(title, tuple((name, printable(value)) for name, value in facts))


def _request(request: x509.CertificateSigningRequest) -> Description:
    names = [name_text(name) for name in alternative_names(request)]
    facts = [
        ("subject", request.subject.rfc4514_string() or "none"),
        ("names", ", ".join(names) or "none"),
        ("key", key_type(request.public_key())),
        ("signature", "right" if request.is_signature_valid else "wrong"),
    ]
    return Description(
        "request for a certificate (CSR)",
        tuple((name, printable(value)) for name, value in facts),
    )


def _usages(certificate: x509.Certificate) -> Iterator[str]:
    if is_authority(certificate):
        yield "issues certificates"
    for usage in extended_key_usages(certificate):
        yield _USAGES.get(usage.dotted_string, usage.dotted_string)


def _validity(certificate: x509.Certificate, now: datetime) -> str:
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    text = f"{moment(starts)} to {moment(ends)}"
    if now < starts:
        return f"{text}: not yet"
    return f"{text}: {expiry_notice(ends, now) or f'{(ends - now) // timedelta(days=1)} days left'}"


def _issuer(certificate: x509.Certificate) -> str:
    if is_issued_by(certificate, certificate):
        return "itself"
    return certificate.issuer.rfc4514_string()
