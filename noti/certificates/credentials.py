"""What one side of a TLS connection shows and trusts, checked before it is used.

A peer with the same CAs accepts these `Credentials`. The key is in no message and no `repr`.

Each check is one that the other side would make in the handshake, or OpenSSL when it loads the
files; made here, it has a line that names the file and the remedy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import assert_never

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from noti.certificates import pem
from noti.certificates.expiry import moment
from noti.certificates.files import read_file
from noti.certificates.names import Claims, claims_of
from noti.errors import ConfigInvalid


class CertificateUse(Enum):
    """What the files are for, which decides what must be right about them."""

    NODE = "node"
    """Mutual TLS between nodes: names a node, both usages, issued by a CA of the CA file."""
    CLIENT = "client"
    """A client of the nodes: names a client, issued by a CA of the CA file."""
    HTTPS = "https"
    """A server for browsers: usage serverAuth if any is stated; who issued it is their business."""
    NATS = "nats"
    """A client of NATS: usage clientAuth if any is stated; the CA file is that of the server."""


@dataclass(frozen=True)
class Credentials:
    """A certificate with its chain and key, and the CAs that the other side must come from."""

    use: CertificateUse
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """The certificates after the first in its file, each the issuer of the one before."""
    authorities: tuple[x509.Certificate, ...]
    claims: Claims
    certificate_pem: bytes
    """Certificate and chain."""
    key_pem: bytes = field(repr=False)
    authorities_pem: bytes
    """Empty when no CA file was given."""
    place: str
    """The certificate file, for messages."""

    @property
    def not_after(self) -> datetime:
        """When the first certificate on the way to the CA expires; has a time zone."""
        return min(
            certificate.not_valid_after_utc for certificate in (self.certificate, *self.chain)
        )


def load_credentials(
    certificate: Path,
    key: Path,
    ca: Path | None = None,
    *,
    use: CertificateUse = CertificateUse.NODE,
    now: datetime | None = None,
) -> Credentials:
    """Read and check the files; `now` is the clock's time unless given.

    Raises `ConfigInvalid`, whose line names the file, what is wrong with it, and what to do.
    """
    now = datetime.now(UTC) if now is None else now
    held = check_certificate(certificate, ca, use=use, now=now)
    private, key_pem = pem.private_key(read_file(key), key)
    if not pem.is_pair(held[0], private):
        raise ConfigInvalid(
            f"{key} is not the key of the certificate {certificate}; give the pair that was issued"
            " together"
        )
    authorities = () if ca is None else load_authorities(ca, now=now)
    return Credentials(
        use=use,
        certificate=held[0],
        chain=tuple(held[1:]),
        authorities=authorities,
        claims=claims_of(held[0]),
        certificate_pem=_to_pem(held),
        key_pem=key_pem,
        authorities_pem=_to_pem(authorities),
        place=str(certificate),
    )


def check_certificate(
    certificate: Path, ca: Path | None, *, use: CertificateUse, now: datetime
) -> Sequence[x509.Certificate]:
    """Check a certificate as its peers will, without its key; return it with its chain.

    Raises `ConfigInvalid`.
    """
    held = _in_order(pem.certificates(read_file(certificate), certificate), certificate)
    _check_dates(held[0], str(certificate), now)
    _check_use(held[0], use, certificate)
    for issuer in held[1:]:
        _check_dates(issuer, f"{certificate} holds a CA certificate ({_subject(issuer)}) that", now)
    if ca is not None and use in (CertificateUse.NODE, CertificateUse.CLIENT):
        _check_issued(held, load_authorities(ca, now=now), certificate, ca, now)
    return held


def load_authorities(ca: Path, *, now: datetime | None = None) -> tuple[x509.Certificate, ...]:
    """Read a bundle of CA certificates; several are allowed, so that a CA can be replaced.

    Raises `ConfigInvalid` when one is not a CA, or all have expired: one that has expired may stay
    beside its successor.
    """
    now = datetime.now(UTC) if now is None else now
    held = pem.certificates(read_file(ca), ca)
    for certificate in held:
        if not is_authority(certificate):
            raise ConfigInvalid(
                f"{ca} holds {_subject(certificate)}, which is not a CA (it lacks the CA flag);"
                " give the certificate of the CA that issued it"
            )
        if not _may_sign(certificate):
            raise ConfigInvalid(
                f"{ca} holds the CA {_subject(certificate)}, whose key usage does not let it sign"
                " certificates (keyCertSign); make another CA"
            )
    if all(not _is_current(certificate, now) for certificate in held):
        _check_dates(held[0], f"{ca} holds only CAs that are not valid now: the first", now)
    return tuple(held)


def serial_text(certificate: x509.Certificate) -> str:
    """Return the serial number as `openssl x509 -serial` prints it: pairs of digits."""
    digits = f"{certificate.serial_number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate has the CA flag (RFC 5280, 4.2.1.9)."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _in_order(held: Sequence[x509.Certificate], path: Path) -> Sequence[x509.Certificate]:
    """Return the certificates if each was issued by the next, the first being no CA."""
    if is_authority(held[0]):
        what = f"{path} begins with the CA certificate {_subject(held[0])}"
        if all(map(is_authority, held)):
            raise ConfigInvalid(f"{what}; give the certificate that it issued")
        raise ConfigInvalid(
            f"{what}: its certificates are in the wrong order; put the one without the CA flag"
            " first, then its issuer"
        )
    for number, (one, issuer) in enumerate(pairwise(held), 2):
        if not is_issued_by(one, issuer):
            raise ConfigInvalid(
                f"{path} has its certificates in the wrong order: number {number}"
                f" ({_subject(issuer)}) did not issue the one before it; put each issuer behind"
                " what it issued, and nothing else"
            )
        if not is_authority(issuer):
            raise ConfigInvalid(
                f"{path} holds {_subject(issuer)} as an issuer, but it is not a CA"
                " (it lacks the CA flag); use a CA to issue"
            )
    return held


def _check_use(leaf: x509.Certificate, use: CertificateUse, path: Path) -> None:
    """Raise unless names and usages fit the role."""
    named = claims_of(leaf)
    anything = not _has(leaf, x509.ExtendedKeyUsage)
    match use:
        case CertificateUse.NODE:
            if not named.nodes:
                raise ConfigInvalid(
                    f"{path} names no node (it is for {named}); issue one with"
                    " DNS:<node name>: noti certs issue NAME"
                )
            wanted = [("serverAuth", named.may_serve), ("clientAuth", named.may_call)]
        case CertificateUse.CLIENT:
            if named.profile == "node":
                raise ConfigInvalid(
                    f"{path} is the certificate of {named}, not of a client; issue one:"
                    " noti certs issue --client NAME"
                )
            if not named.clients:
                raise ConfigInvalid(
                    f"{path} names no client; issue one with URI:noti-client://<name>:"
                    " noti certs issue --client NAME"
                )
            wanted = [("clientAuth", named.may_call)]
        case CertificateUse.HTTPS:
            wanted = [("serverAuth", named.may_serve or anything)]
        case CertificateUse.NATS:
            wanted = [("clientAuth", named.may_call or anything)]
        case _:
            assert_never(use)
    for usage, present in wanted:
        if not present:
            raise ConfigInvalid(
                f"{path} is not meant for this use: its extended key usage lacks {usage};"
                " issue a certificate that has it"
            )
    if not _may_prove(leaf):
        raise ConfigInvalid(
            f"{path} cannot be used for TLS: its key usage lacks digitalSignature; issue a"
            " certificate that has it"
        )


def _check_issued(
    held: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    path: Path,
    ca: Path,
    now: datetime,
) -> None:
    """Raise unless one of the CAs, valid now, issued a certificate of the chain."""
    issuers = [
        authority
        for certificate in held
        for authority in authorities
        if is_issued_by(certificate, authority) or certificate == authority
    ]
    if not issuers:
        raise ConfigInvalid(
            f"{path} was not issued by a CA in {ca} (but by {held[-1].issuer.rfc4514_string()!r});"
            " issue it anew, or add that CA to the file"
        )
    if not any(_is_current(issuer, now) for issuer in issuers):
        _check_dates(issuers[0], f"{ca} holds the CA {_subject(issuers[0])} of {path}, which", now)


def _check_dates(certificate: x509.Certificate, what: str, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise ConfigInvalid(
            f"{what} expired on {moment(certificate.not_valid_after_utc)}; renew it"
        )
    if now < certificate.not_valid_before_utc:
        raise ConfigInvalid(
            f"{what} is not valid before {moment(certificate.not_valid_before_utc)}, and this"
            f" machine's clock says {moment(now)}; check the clock, or issue it again"
        )


def _is_current(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _has(certificate: x509.Certificate, extension: type[x509.ExtensionType]) -> bool:
    try:
        certificate.extensions.get_extension_for_class(extension)
    except x509.ExtensionNotFound:
        return False
    return True


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _may_sign(certificate: x509.Certificate) -> bool:
    usage = _key_usage(certificate)
    return usage is None or usage.key_cert_sign


def _may_prove(certificate: x509.Certificate) -> bool:
    usage = _key_usage(certificate)
    return usage is None or usage.digital_signature


def _subject(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string())


def _to_pem(held: Iterable[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in held)
