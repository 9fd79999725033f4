"""Credentials are right as a whole, or rejected in one line that names the file and the remedy."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
import trustme

from noti.certificates.context import mutual_server_context
from noti.certificates.credentials import CertificateUse, load_authorities, load_credentials
from noti.errors import ConfigInvalid
from tests import promises
from tests.certificates.authority import CLIENT, DAY, SERVER, Wanted, authority, client, issue, node

CA = authority()
GOOD = Wanted(common_name="node1", dns=("node1",))


@dataclass
class Files:
    """A good set, for a test to spoil."""

    certificate: Path
    key: Path
    ca: Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(CA.pem)
    return Files(*node("node1", CA).write(tmp_path, "node1"), ca)


def test_good_files_yield_whom_they_name_and_until_when(files: Files) -> None:
    credentials = load_credentials(files.certificate, files.key, files.ca)
    assert credentials.claims.node_names == {"node1"}
    assert credentials.authorities == (CA.certificate,)
    assert credentials.not_after == credentials.certificate.not_valid_after_utc


def test_certificates_of_trustme_are_good(tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("node1")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "node1.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "node1.key")
    paths = [tmp_path / name for name in ("node1.pem", "node1.key", "ca.pem")]
    credentials = load_credentials(*paths)
    assert credentials.claims.profile == "node"
    mutual_server_context(credentials)


def test_end_is_that_of_the_first_to_expire(tmp_path: Path, files: Files) -> None:
    middle = issue(Wanted(is_authority=True, ends=3 * DAY), CA)
    certificate, key = node("node1", middle).write(tmp_path, "below")
    certificate.write_bytes(certificate.read_bytes() + middle.pem)
    credentials = load_credentials(certificate, key, files.ca)
    assert credentials.not_after == middle.certificate.not_valid_after_utc


def test_text_around_pem_blocks_is_allowed(files: Files) -> None:
    files.ca.write_bytes(b"# our CA, \xc3\xa9\r\n" + CA.pem.replace(b"\n", b"\r\n") + b"\n# end")
    load_credentials(files.certificate, files.key, files.ca)


def test_certificate_and_key_may_share_a_file(files: Files) -> None:
    files.key.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    load_credentials(files.key, files.key, files.ca)


def encrypted(key: Path, *options: str) -> bytes:
    command = ["openssl", "pkey", "-in", str(key), "-passout", "pass:secret", *options]
    return subprocess.run(command, check=True, capture_output=True).stdout


def swap(files: Files) -> None:
    """The wrong order: the CA before the certificate."""
    files.certificate.write_bytes(CA.pem + files.certificate.read_bytes())


def turn_around(files: Files) -> None:
    """A chain of three whose issuers are in the wrong order."""
    outer = authority("outer", CA)
    inner = authority("inner", outer)
    leaf = node("node1", inner)
    leaf.write(files.ca.parent, "node1")
    files.certificate.write_bytes(leaf.pem + outer.pem + inner.pem)


def weak_issuer(files: Files) -> None:
    """A chain whose issuer is no CA."""
    issuer = node("node2", CA)
    leaf = node("node1", issuer)
    leaf.write(files.ca.parent, "node1")
    files.certificate.write_bytes(leaf.pem + issuer.pem)


def wanted(**changes: object) -> Callable[[Files], None]:
    made = replace(GOOD, **changes)  # type: ignore[arg-type]

    def spoil(files: Files) -> None:
        issue(made, CA).write(files.ca.parent, "node1")

    return spoil


def ca(**changes: object) -> Callable[[Files], None]:
    """The CA file is of a CA like this, which issued the certificate."""
    made = replace(Wanted(common_name="odd CA", is_authority=True), **changes)  # type: ignore[arg-type]

    def spoil(files: Files) -> None:
        issuer = issue(made)
        issue(GOOD, issuer).write(files.ca.parent, "node1")
        files.ca.write_bytes(issuer.pem)

    return spoil


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_device(files: Files) -> None:
    files.ca.unlink()
    files.ca.symlink_to("/dev/zero")


def as_pipe(files: Files) -> None:
    files.key.unlink()
    os.mkfifo(files.key)


BAD: list[tuple[str, Callable[[Files], object], str]] = [
    (
        "certificate missing",
        lambda f: f.certificate.unlink(),
        r"node1\.pem cannot be read: No such",
    ),
    ("key missing", lambda f: f.key.unlink(), r"node1\.key cannot be read: No such file"),
    ("ca missing", lambda f: f.ca.unlink(), r"ca\.pem cannot be read: No such file"),
    (
        "certificate a directory",
        lambda f: as_directory(f.certificate),
        r"node1\.pem is a directory",
    ),
    ("key a directory", lambda f: as_directory(f.key), r"node1\.key is a directory; name the PEM"),
    ("ca a directory", lambda f: as_directory(f.ca), r"ca\.pem is a directory; name the PEM file"),
    ("certificate empty", lambda f: f.certificate.write_bytes(b""), r"node1\.pem is empty"),
    ("key empty", lambda f: f.key.write_bytes(b"\n \n"), r"node1\.key is empty; put a PEM file"),
    ("ca empty", lambda f: f.ca.write_bytes(b""), r"ca\.pem is empty"),
    ("a device", as_device, r"not a regular file"),
    ("a pipe", as_pipe, r"node1\.key is not a regular file"),
    ("huge", lambda f: os.truncate(f.ca, 1 << 30), r"ca\.pem has 1,073,741,824 bytes"),
    ("text", lambda f: f.certificate.write_text("hello"), r"node1\.pem is not PEM: it has no line"),
    (
        "DER",
        lambda f: f.certificate.write_bytes(node("node1", CA).der),
        r"is not PEM.*openssl x509 -inform der",
    ),
    ("cut off", lambda f: f.key.write_bytes(f.key.read_bytes()[:80]), r"node1\.key is cut off"),
    (
        "certificate damaged",
        lambda f: f.certificate.write_bytes(f.certificate.read_bytes().replace(b"\nM", b"\nA", 1)),
        r"node1\.pem holds a certificate \(number 1\) that does not decode",
    ),
    (
        "key damaged",
        lambda f: f.key.write_bytes(f.key.read_bytes().replace(b"\nM", b"\nA", 1)),
        r"node1\.key holds a private key that does not decode; issue it again",
    ),
    (
        "key as certificate",
        lambda f: f.certificate.write_bytes(f.key.read_bytes()),
        r"node1\.pem holds no certificate but a private key; name the certificate file",
    ),
    (
        "certificate as key",
        lambda f: f.key.write_bytes(f.certificate.read_bytes()),
        r"node1\.key holds no private key but a certificate; name the key file",
    ),
    (
        "two keys",
        lambda f: f.key.write_bytes(f.key.read_bytes() * 2),
        r"node1\.key holds 2 private keys; keep one",
    ),
    (
        "key encrypted",
        lambda f: f.key.write_bytes(encrypted(f.key, "-aes256")),
        r"node1\.key is an encrypted key, .*decrypt it: openssl pkey -in .*node1\.key",
    ),
    (
        "key encrypted in the old form",
        lambda f: f.key.write_bytes(encrypted(f.key, "-aes256", "-traditional")),
        r"node1\.key is an encrypted key",
    ),
    (
        "key of another certificate",
        lambda f: f.key.write_bytes(node("node1", CA).key_pem),
        r"node1\.key is not the key of the certificate .*node1\.pem; give the pair",
    ),
    (
        "CA first",
        swap,
        r"node1\.pem begins with the CA certificate .* wrong order; put the one with",
    ),
    ("issuers turned around", turn_around, r"node1\.pem has its certificates in the wrong order"),
    ("issuer that is no CA", weak_issuer, r"as an issuer, but it is not a CA \(it lacks the CA fl"),
    (
        "CA as certificate",
        lambda f: CA.write(f.ca.parent, "node1"),
        r"node1\.pem begins with the CA certificate .*; give the certificate that it issued",
    ),
    (
        "node as CA",
        lambda f: f.ca.write_bytes(f.certificate.read_bytes()),
        r"ca\.pem holds 'CN=node1', which is not a CA \(it lacks the CA flag\)",
    ),
    ("CA that may not sign", ca(key_usage=("crl_sign",)), r"ca\.pem .* does not let it sign cert"),
    ("CA expired", ca(starts=-2 * DAY, ends=-DAY), r"ca\.pem holds only CAs .* expired on 2"),
    ("CA not yet valid", ca(starts=DAY), r"ca\.pem holds only CAs .* is not valid before"),
    (
        "another CA",
        lambda f: f.ca.write_bytes(authority("another").pem),
        r"node1\.pem was not issued by a CA in .*ca\.pem \(but by 'CN=test CA'\)",
    ),
    (
        "another CA of the same name",
        lambda f: f.ca.write_bytes(authority().pem),
        r"node1\.pem was not issued by a CA in",
    ),
    (
        "self-signed",
        lambda f: issue(GOOD).write(f.ca.parent, "node1"),
        r"node1\.pem was not issued by a CA in .*ca\.pem",
    ),
    ("expired", wanted(starts=-2 * DAY, ends=-DAY), r"node1\.pem expired on .* UTC; renew it"),
    ("not yet valid", wanted(starts=DAY), r"node1\.pem is not valid before .* clock says"),
    ("server only", wanted(usages=(SERVER,)), r"extended key usage lacks clientAuth; issue"),
    ("client only", wanted(usages=(CLIENT,)), r"extended key usage lacks serverAuth; issue"),
    ("no usage stated", wanted(usages=None), r"extended key usage lacks serverAuth"),
    ("no signatures", wanted(key_usage=("key_agreement",)), r"key usage lacks digitalSignature"),
    (
        "no name",
        wanted(dns=()),
        r"node1\.pem names no node \(it is for no node or client\); issue one with DNS",
    ),
    (
        "client's",
        lambda f: client("admin", CA).write(f.ca.parent, "node1"),
        r"node1\.pem names no node \(it is for client admin\)",
    ),
]


@promises.BAD_CERTIFICATE_REJECTED
@pytest.mark.openssl
@pytest.mark.parametrize(("spoil", "line"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_bad_input_is_rejected_in_one_line(
    files: Files, spoil: Callable[[Files], object], line: str
) -> None:
    secret = files.key.read_text().splitlines()[1]
    spoil(files)
    with pytest.raises(ConfigInvalid) as caught:
        load_credentials(files.certificate, files.key, files.ca)
    said = str(caught.value)
    assert re.search(line, said), said
    assert "\n" not in said
    assert str(files.ca.parent) in said, "the file is named"
    assert secret not in said


def test_unreadable_file_is_named(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the rejection is simulated."""

    def reject(self: Path, _mode: str) -> BinaryIO:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", reject)
    with pytest.raises(ConfigInvalid, match=r"node1\.pem cannot be read: Permission denied; check"):
        load_credentials(files.certificate, files.key, files.ca)


def test_client_role_wants_a_client(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"is the certificate of node node1, not of a client"):
        load_credentials(files.certificate, files.key, files.ca, use=CertificateUse.CLIENT)
    paths = client("admin", CA).write(tmp_path, "admin")
    credentials = load_credentials(*paths, files.ca, use=CertificateUse.CLIENT)
    assert credentials.claims.profile == "client"


def test_https_wants_a_server_and_no_ca_of_ours(tmp_path: Path) -> None:
    public = issue(Wanted(dns=("app.example.com",), usages=(SERVER,)), authority("public CA"))
    load_credentials(*public.write(tmp_path, "web"), use=CertificateUse.HTTPS)
    calling = issue(Wanted(dns=("app.example.com",), usages=(CLIENT,)), CA)
    with pytest.raises(ConfigInvalid, match="lacks serverAuth"):
        load_credentials(*calling.write(tmp_path, "web"), use=CertificateUse.HTTPS)


def test_nats_client_may_have_another_ca_than_the_server(tmp_path: Path, files: Files) -> None:
    theirs = issue(Wanted(usages=(CLIENT,)), authority("NATS clients"))
    load_credentials(*theirs.write(tmp_path, "nats"), files.ca, use=CertificateUse.NATS)


def test_expired_ca_may_stay_beside_its_successor(files: Files) -> None:
    old = issue(Wanted("old CA", is_authority=True, starts=-2 * DAY, ends=-DAY))
    files.ca.write_bytes(old.pem + CA.pem)
    assert len(load_authorities(files.ca)) == 2
    load_credentials(files.certificate, files.key, files.ca)
    issue(GOOD, old).write(files.ca.parent, "node1")
    with pytest.raises(ConfigInvalid, match=r"holds the CA 'CN=old CA' of .*, which expired on"):
        load_credentials(files.certificate, files.key, files.ca)


def test_validity_is_checked_at_the_time_given(files: Files) -> None:
    later = datetime.now(UTC) + timedelta(days=61)
    with pytest.raises(ConfigInvalid, match=r"node1\.pem expired"):
        load_credentials(files.certificate, files.key, files.ca, now=later)


def test_what_only_openssl_rejects_is_found_before_it_is_used(files: Files) -> None:
    """A CA that may not issue CAs (path length 0) did: only the handshake looks at that."""
    outer = issue(Wanted("outer", is_authority=True, path_length=0))
    inner = authority("inner", outer)
    leaf = node("node1", inner)
    leaf.write(files.ca.parent, "node1")
    files.certificate.write_bytes(leaf.pem + inner.pem)
    files.ca.write_bytes(outer.pem)
    credentials = load_credentials(files.certificate, files.key, files.ca)
    with pytest.raises(ConfigInvalid, match=r"node1\.pem would be rejected by every node"):
        mutual_server_context(credentials)
