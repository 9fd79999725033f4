"""No certificate, however damaged or odd, gets further than an error for a person."""

import base64
import random
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

from noti.certificates.credentials import load_credentials
from noti.certificates.decoding import decode_certificate
from noti.certificates.describing import describe
from noti.certificates.names import claims
from noti.errors import ConfigInvalid, MessageInvalid
from tests import promises
from tests.certificates.authority import Wanted, authority, issue

CA = authority()
NODE = issue(Wanted(dns=("node1",), uris=("noti://c1/node1",), ips=("10.0.0.1",)), CA)
MUTANTS = 300


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), body, label.encode())


def mutant(der: bytes, rng: random.Random) -> bytes:
    changed = bytearray(der)
    for _ in range(rng.choice((1, 1, 2, 4))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_good_certificate_decodes_from_both_forms() -> None:
    assert decode_certificate(NODE.der) == decode_certificate(NODE.pem) == NODE.certificate


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"),  # version 7
        (b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x11"),  # a second list of names
        (b"\x82\x05node1", b"\xa3\x05node1"),  # an X.400 address
        (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x7f"),
    ],
    ids=["version", "duplicate extension", "X.400 address", "unknown curve"],
)
def test_oddities_that_the_library_reports_in_its_own_ways_are_rejected(
    old: bytes, new: bytes
) -> None:
    """A peer with one of these, signed by our CA, was once an error that nobody expected."""
    assert old in NODE.der
    with pytest.raises(MessageInvalid, match="the certificate does not decode"):
        claims(NODE.der.replace(old, new))


@promises.BAD_CERTIFICATE_REJECTED
def test_no_damage_gets_past_the_checks(tmp_path: Path) -> None:
    rng = random.Random(1)
    ca, (certificate, key) = tmp_path / "ca.pem", NODE.write(tmp_path, "node1")
    originals = {ca: CA.der, certificate: NODE.der, key: base64.b64decode(_body(NODE.key_pem))}
    ca.write_bytes(CA.pem)
    rejected = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of what it will reject later
        for path, der in originals.items():
            kept = path.read_bytes()
            for _ in range(MUTANTS):
                damaged = mutant(der, rng)
                path.write_bytes(pem(damaged, "PRIVATE KEY" if path == key else "CERTIFICATE"))
                assert describe(path.read_bytes(), path, datetime.now(UTC))
                if path == certificate:
                    rejected += _rejects(damaged)
                try:
                    load_credentials(certificate, key, ca)
                except ConfigInvalid:
                    rejected += 1
            path.write_bytes(kept)
    assert rejected > MUTANTS
    load_credentials(certificate, key, ca)


def _rejects(der: bytes) -> bool:
    try:
        claims(der)
    except MessageInvalid:
        return True
    return False


def _body(pem_text: bytes) -> bytes:
    return b"".join(pem_text.splitlines()[1:-1])
