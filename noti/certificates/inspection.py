"""Finds out which files of a directory a node would reject, and why, by the checks of a node.

A directory holds the CA file `ca.pem` or `ca.crt`, and pairs `NAME.pem` and `NAME.key` (or
`tls.crt` and `tls.key`, as Kubernetes has them). A certificate without a key beside it is checked
as that of a peer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from noti.certificates import pem
from noti.certificates.context import mutual_client_context, mutual_server_context
from noti.certificates.credentials import (
    CertificateUse,
    check_certificate,
    is_authority,
    load_authorities,
    load_credentials,
)
from noti.certificates.expiry import expiry_notice, moment
from noti.certificates.files import is_private, read_file
from noti.certificates.names import claims_of
from noti.errors import ConfigInvalid

CA_NAMES = ("ca.pem", "ca.crt")
CERTIFICATE_SUFFIXES = (".pem", ".crt", ".cer")
KEY_SUFFIX = ".key"

Verdict: TypeAlias = Literal["ok", "notice", "rejected"]


@dataclass(frozen=True, slots=True)
class CertificateFinding:
    """What was found about one file."""

    file: str
    verdict: Verdict
    """`notice` is for what works and still deserves a look."""
    text: str


def inspect(directory: Path, now: datetime) -> list[CertificateFinding]:
    """Check every certificate and key in a directory; raises `ConfigInvalid` if it has none."""
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise ConfigInvalid(f"{directory} cannot be read: {error.strerror}") from None
    paths = [path for path in paths if path.suffix in (*CERTIFICATE_SUFFIXES, KEY_SUFFIX)]
    if not paths:
        raise ConfigInvalid(f"{directory} holds no certificates; make them: noti certs init")
    ca = next((path for path in paths if path.name in CA_NAMES), None)
    findings: list[CertificateFinding] = []
    if ca is None:
        text = "missing: a node needs the certificate of its CA; copy it from where it was made"
        findings.append(CertificateFinding(CA_NAMES[0], "rejected", text))
    for path in paths:
        try:
            if path == ca:
                findings += _check_ca(path, now)
            elif path.suffix == KEY_SUFFIX:
                findings += _check_key(path, paths)
            else:
                findings += _check_certificate(path, ca, now)
        except ConfigInvalid as error:
            findings.append(CertificateFinding(path.name, "rejected", str(error)))
    return findings


def _check_ca(ca: Path, now: datetime) -> Iterator[CertificateFinding]:
    held = load_authorities(ca, now=now)
    for certificate in held:
        name = certificate.subject.rfc4514_string()
        ends = certificate.not_valid_after_utc
        if notice := expiry_notice(ends, now):
            yield CertificateFinding(ca.name, "notice", f"the CA {name!r} {notice}")
        else:
            yield CertificateFinding(ca.name, "ok", f"the CA {name!r}, until {moment(ends)}")


def _check_key(key: Path, paths: list[Path]) -> Iterator[CertificateFinding]:
    pem.private_key(read_file(key), key)
    if key.stem == "ca":
        yield CertificateFinding(
            key.name, "notice", "the key of the CA can make nodes; keep it away from the nodes"
        )
    elif not any(key.with_suffix(suffix) in paths for suffix in CERTIFICATE_SUFFIXES):
        yield CertificateFinding(
            key.name, "notice", f"there is no certificate {key.stem}.pem beside it"
        )
    if not is_private(key):
        yield CertificateFinding(key.name, "notice", f"others can read it: chmod 600 {key}")


def _check_certificate(path: Path, ca: Path | None, now: datetime) -> Iterator[CertificateFinding]:
    blocks = pem.blocks(read_file(path), path)
    if not any(block.is_certificate for block in blocks):
        yield CertificateFinding(
            path.name, "notice", f"holds no certificate but: {blocks[0].label.lower()}"
        )
        return
    held = pem.certificates(read_file(path), path)
    if all(map(is_authority, held)):
        yield CertificateFinding(
            path.name, "notice", "a CA that nodes do not read: they read ca.pem"
        )
        return
    leaf = held[0]
    named = claims_of(leaf)
    use = CertificateUse.CLIENT if named.clients and not named.nodes else CertificateUse.NODE
    key = path.with_suffix(KEY_SUFFIX)
    if key.exists():
        credentials = load_credentials(path, key, ca, use=use, now=now)
        if ca is not None:
            make = mutual_server_context if use is CertificateUse.NODE else mutual_client_context
            make(credentials)
        ends, remark = credentials.not_after, ""
    else:
        check_certificate(path, ca, use=use, now=now)
        ends, remark = leaf.not_valid_after_utc, "; no key beside it, checked as a peer's"
    if notice := expiry_notice(ends, now):
        yield CertificateFinding(path.name, "notice", f"{named} {notice}{remark}")
    else:
        yield CertificateFinding(path.name, "ok", f"{named}, until {moment(ends)}{remark}")
