"""`noti certs` makes what nodes take, overwrites nothing, and says in plain words what it reads."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from noti.certificates.credentials import CertificateUse, load_credentials
from noti.cli import exit_status
from tests.certificates.authority import DAY, SERVER, Issued, Wanted, authority, client, issue, node

Noti: TypeAlias = Callable[..., tuple[int, str, str]]
CA = authority()


@pytest.fixture
def certs(capsys: pytest.CaptureFixture[str]) -> Noti:
    """Run `noti certs …`; return exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = exit_status(["certs", *map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def made(certs: Noti, tmp_path: Path) -> Path:
    """A directory with a CA, two nodes and a client."""
    directory = tmp_path / "certs"
    assert certs("init", "--dir", directory)[0] == 0
    assert certs("issue", "--dir", directory, "node1", "node2")[0] == 0
    assert certs("issue", "--dir", directory, "--client", "admin")[0] == 0
    return directory


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# --- init and issue -------------------------------------------------------------------------------


def test_files_are_ready_for_nodes_and_clients(made: Path) -> None:
    ca = made / "ca.pem"
    own = load_credentials(made / "node1.pem", made / "node1.key", ca)
    assert own.claims.node_names == {"node1"}
    admin = load_credentials(made / "admin.pem", made / "admin.key", ca, use=CertificateUse.CLIENT)
    assert admin.claims.client_names == {"admin"}


def test_keys_are_for_their_owner_only(made: Path) -> None:
    for key in made.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("again", [("init",), ("issue", "node3", "node1")])
def test_nothing_is_overwritten(made: Path, certs: Noti, again: tuple[str, ...]) -> None:
    before = content(made)
    status, said, problem = certs(again[0], "--dir", made, *again[1:])
    assert (status, said) == (1, "")
    assert "exists and is kept" in problem
    assert content(made) == before, "not even what could have been made"


def test_hosts_and_days_are_as_asked_for(made: Path, certs: Noti) -> None:
    arguments = ("--dns", "app.example.com", "--ip", "10.0.0.1", "--ip", "::1", "--days", 7)
    assert certs("issue", "--dir", made, "node3", *arguments)[0] == 0
    _, said, _ = certs("show", made / "node3.pem")
    assert "DNS:node3, DNS:app.example.com, IP:10.0.0.1, IP:::1" in said
    assert "expires in 6 days" in said


def test_renewal_keeps_names_and_changes_certificate_and_key(made: Path, certs: Noti) -> None:
    hosts = ("--dns", "app.example.com", "--ip", "::1", "--cluster", "c1")
    assert certs("issue", "--dir", made, "node3", *hosts)[0] == 0
    before = load_credentials(made / "node3.pem", made / "node3.key", made / "ca.pem")
    assert certs("issue", "--dir", made, "--renew", "node3")[0] == 0
    after = load_credentials(made / "node3.pem", made / "node3.key", made / "ca.pem")
    assert after.claims.nodes == before.claims.nodes
    assert after.claims.hosts == before.claims.hosts
    assert after.certificate.serial_number != before.certificate.serial_number
    assert after.key_pem != before.key_pem
    assert (made / "node3.key").stat().st_mode & 0o777 == 0o600


def test_renewal_takes_no_other_name_and_nothing_that_is_not_there(made: Path, certs: Noti) -> None:
    before = content(made)
    status, _, problem = certs("issue", "--dir", made, "--renew", "admin")
    assert status == 2
    assert "admin.pem is for client admin, not for node admin" in problem
    status, _, problem = certs("issue", "--dir", made, "--renew", "node9")
    assert status == 2
    assert "node9.pem cannot be read: No such file" in problem
    assert content(made) == before


def test_of_a_bundle_the_ca_of_the_key_issues(made: Path, certs: Noti, tmp_path: Path) -> None:
    """As the rotation in tls/README.md has it: the new CA issues while both are trusted."""
    new = tmp_path / "new"
    assert certs("init", "--dir", new, "--name", "noti CA 2")[0] == 0
    bundle = (made / "ca.pem").read_bytes() + (new / "ca.pem").read_bytes()
    (new / "ca.pem").write_bytes(bundle)
    assert certs("issue", "--dir", new, "node1")[0] == 0
    (made / "ca.pem").write_bytes(bundle)
    for directory, issuer in ((made, "noti CA"), (new, "noti CA 2")):
        held = load_credentials(directory / "node1.pem", directory / "node1.key", made / "ca.pem")
        assert held.certificate.issuer.rfc4514_string() == f"CN={issuer}"


def test_validity_is_cut_to_that_of_the_ca(certs: Noti, tmp_path: Path) -> None:
    assert certs("init", "--dir", tmp_path, "--days", 5)[0] == 0
    _, said, _ = certs("issue", "--dir", tmp_path, "node1")
    assert re.search(r"node1\.pem  node node1, until .* UTC with its CA\n", said)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("node_1",), "'node_1' is not a name; use 1 to 128 letters"),
        (("../node1",), "'../node1' is not a name"),
        (("ca",), "'ca' is the name of the CA's own files"),
        (("node3", "--dns", "http://x"), "--dns 'http://x' is not a host name"),
        (("node3", "--ip", "localhost"), "--ip 'localhost' is not an IP address"),
        (("node3", "--days", "0"), "0 is not in the range"),
        (("node3", "--client", "--cluster", "c1"), "--cluster is for nodes"),
        (("node3", "--cluster", "a/b"), "'a/b' is not a name"),
        ((), "Missing argument 'NAME...'"),
    ],
)
def test_wrong_request_is_one_line_and_makes_nothing(
    made: Path, certs: Noti, arguments: tuple[str, ...], line: str
) -> None:
    before = content(made)
    status, _, problem = certs("issue", "--dir", made, *arguments)
    assert status == 2
    assert line in problem
    assert problem.count("\n") == 1
    assert content(made) == before


def spoiled(certs: Noti, made: Path, **files: bytes) -> str:
    for name, text in files.items():
        (made / name.replace("_", ".")).write_bytes(text)
    status, _, problem = certs("issue", "--dir", made, "node3")
    assert status == 2
    return problem


def test_unusable_ca_is_reported(made: Path, certs: Noti, tmp_path: Path) -> None:
    other = authority()
    assert "ca.key is not the key of a CA in" in spoiled(certs, made, ca_key=other.key_pem)
    leaf = node("x", CA)
    said = spoiled(certs, made, ca_key=leaf.key_pem, ca_pem=leaf.pem)
    assert "is not a CA (it lacks the CA flag)" in said
    old = issue(Wanted(is_authority=True, starts=-2 * DAY, ends=-DAY))
    assert "has expired" in spoiled(certs, made, ca_key=old.key_pem, ca_pem=old.pem)
    status, _, problem = certs("issue", "--dir", tmp_path / "none", "node3")
    assert status == 2
    assert "has no CA; make one: noti certs init --dir" in problem


# --- show -----------------------------------------------------------------------------------------


def test_certificate_is_shown_in_plain_words(made: Path, certs: Noti) -> None:
    status, said, _ = certs("show", made / "node1.pem")
    assert status == 0
    assert "certificate of node node1\n" in said
    assert re.search(r"^  names +DNS:node1$", said, re.MULTILINE)
    assert re.search(
        r"^  usage +TLS server \(serverAuth\), TLS client \(clientAuth\)$", said, re.MULTILINE
    )
    assert re.search(r"^  valid +.* UTC to .* UTC: 89 days left$", said, re.MULTILINE)
    assert re.search(r"^  issued by +CN=noti CA$", said, re.MULTILINE)
    assert re.search(r"^  key +ECDSA P-256$", said, re.MULTILINE)


@pytest.mark.openssl
def test_fingerprint_is_the_one_that_openssl_prints(made: Path, certs: Noti) -> None:
    command = [
        "openssl",
        "x509",
        "-in",
        str(made / "node1.pem"),
        "-noout",
        "-fingerprint",
        "-sha256",
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    _, said, _ = certs("show", made / "node1.pem")
    assert printed.strip().partition("=")[2] in said


def test_of_a_key_only_its_type_is_shown(made: Path, certs: Noti) -> None:
    _, said, _ = certs("show", made / "node1.key")
    assert said == f"{made}/node1.key: private key\n  type        ECDSA P-256\n"


def test_chains_and_bundles_are_shown_one_by_one(certs: Noti, tmp_path: Path) -> None:
    file = tmp_path / "chain.pem"
    file.write_bytes(node("node1", CA).pem + CA.pem + client("admin", CA).pem)
    _, said, _ = certs("show", file)
    titles = [line.partition(": ")[2] for line in said.splitlines() if line.startswith(str(file))]
    assert titles == [
        "certificate of node node1",
        "certificate of a CA",
        "certificate of client admin",
    ]


@pytest.mark.openssl
def test_request_and_encrypted_key_are_shown(certs: Noti, tmp_path: Path) -> None:
    key, request = tmp_path / "key.pem", tmp_path / "request.pem"
    subject = ["-subj", "/CN=node1", "-addext", "subjectAltName=DNS:node1,email:a@b.c"]
    new = [
        "-newkey",
        "rsa:2048",
        "-passout",
        "pass:secret",
        "-keyout",
        str(key),
        "-out",
        str(request),
    ]
    subprocess.run(["openssl", "req", *new, *subject], check=True, capture_output=True)
    _, said, _ = certs("show", request)
    assert "request for a certificate (CSR)\n  subject     CN=node1\n" in said
    assert "  names       DNS:node1, email:a@b.c\n" in said
    assert "  key         RSA 2048 bits\n  signature   right\n" in said
    _, said, _ = certs("show", key)
    assert "private key, encrypted" in said


def test_what_does_not_decode_is_reported_and_the_rest_shown(certs: Noti, tmp_path: Path) -> None:
    file = tmp_path / "mixed.pem"
    broken = CA.pem.replace(b"\nM", b"\nA", 1)
    crl = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    file.write_bytes(broken + crl + CA.pem)
    status, said, _ = certs("show", file)
    assert status == 0
    assert "problem     it does not decode" in said
    assert "x509 crl, which noti does not use" in said
    assert "certificate of a CA" in said


def test_text_in_a_certificate_cannot_steer_the_terminal(certs: Noti, tmp_path: Path) -> None:
    evil = issue(Wanted(common_name="\x1b[31mred", uris=("noti://\x1b[2J",)), CA)
    path, _ = evil.write(tmp_path, "evil")
    status, said, _ = certs("show", path)
    assert status == 0
    assert "\x1b" not in said
    assert "\\x1b[31mred" in said


def test_file_that_is_not_pem_is_reported(certs: Noti, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    status, _, problem = certs("show", file)
    assert status == 2
    assert "notes.txt is not PEM" in problem


# --- check ----------------------------------------------------------------------------------------


def test_good_directory_is_ok(made: Path, certs: Noti) -> None:
    status, said, _ = certs("check", made)
    assert status == 0
    assert re.search(r"^node1\.pem +ok +node node1, until", said, re.MULTILINE)
    assert re.search(r"^admin\.pem +ok +client admin, until", said, re.MULTILINE)
    assert re.search(r"^ca\.pem +ok +the CA 'CN=noti CA', until", said, re.MULTILINE)
    assert re.search(r"^ca\.key +notice +the key of the CA can make nodes", said, re.MULTILINE)


def test_directory_as_kubernetes_mounts_it_is_ok(certs: Noti, tmp_path: Path) -> None:
    certificate, key = node("node1", CA).write(tmp_path, "tls")
    certificate.rename(tmp_path / "tls.crt")
    (tmp_path / "ca.crt").write_bytes(CA.pem)
    status, said, _ = certs("check", tmp_path)
    assert status == 0
    assert re.search(r"^tls\.crt +ok +node node1", said, re.MULTILINE)
    assert key.exists()


def soon() -> Issued:
    return issue(Wanted(dns=("node1",), ends=5 * DAY), CA)


def test_what_works_and_deserves_a_look_is_a_notice(certs: Noti, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    _, key = soon().write(tmp_path, "node1")
    key.chmod(0o644)
    soon().write(tmp_path, "node2")[0].unlink()
    status, said, _ = certs("check", tmp_path)
    assert status == 0
    assert re.search(r"^node1\.pem +notice +node node1 expires in 4 days", said, re.MULTILINE)
    assert re.search(r"^node1\.key +notice +others can read it: chmod 600", said, re.MULTILINE)
    assert re.search(r"^node2\.key +notice +there is no certificate node2\.pem", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("issued", "reason"),
    [
        (lambda: issue(Wanted(dns=("node1",), starts=-2 * DAY, ends=-DAY), CA), "expired on"),
        (lambda: issue(Wanted(dns=("node1",), starts=DAY), CA), "is not valid before"),
        (lambda: issue(Wanted(dns=("node1",), usages=(SERVER,)), CA), "lacks clientAuth"),
        (lambda: issue(Wanted(), CA), "names no node"),
        (lambda: issue(Wanted(dns=("node1",))), "was not issued by a CA in"),
        (lambda: node("node1", authority("other")), "was not issued by a CA in"),
    ],
)
@pytest.mark.parametrize("with_key", [True, False], ids=["own", "a peer's"])
def test_what_would_be_rejected_is_reported_with_exit_status_1(
    certs: Noti, tmp_path: Path, issued: Callable[[], Issued], reason: str, with_key: bool
) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    _, key = issued().write(tmp_path, "node1")
    if not with_key:
        key.unlink()
    status, said, problem = certs("check", tmp_path)
    assert status == 1
    assert re.search(rf"^node1\.pem +rejected +.*{reason}", said, re.MULTILINE)
    assert "1 thing in" in problem
    assert reason in problem


def test_directory_without_ca_or_certificates_is_rejected(certs: Noti, tmp_path: Path) -> None:
    status, _, problem = certs("check", tmp_path)
    assert status == 2
    assert "holds no certificates" in problem
    assert certs("check", tmp_path / "none")[0] == 2
    node("node1", CA).write(tmp_path, "node1")
    status, said, _ = certs("check", tmp_path)
    assert status == 1
    assert re.search(r"^ca\.pem +rejected +missing", said, re.MULTILINE)


def test_odd_files_are_checked_too(made: Path, certs: Noti) -> None:
    (made / "empty.pem").touch()
    (made / "directory.pem").mkdir()
    (made / "request.pem").write_text(
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"
    )
    (made / "old-ca.pem").write_bytes(CA.pem)
    os.mkfifo(made / "pipe.key")
    status, said, problem = certs("check", made)
    assert status == 1
    assert "3 things" in problem
    for line in (
        r"empty\.pem +rejected +.*is empty",
        r"directory\.pem +rejected +.*is a directory",
        r"pipe\.key +rejected +.*not a regular file",
        r"request\.pem +notice +holds no certificate but: certificate request",
        r"old-ca\.pem +notice +a CA that nodes do not read",
    ):
        assert re.search(rf"^{line}", said, re.MULTILINE), line
