"""What we issue is what OpenSSL, as a foreigner, says it is; profiles are the files in `tls/`."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from noti.certificates.credentials import serial_text
from noti.certificates.files import write_file
from noti.certificates.issuing import Authority, Issued, issue, make_authority
from noti.certificates.names import claims_of
from noti.certificates.profiles import load_profile
from noti.errors import ConfigInvalid
from tests import promises

ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC).replace(microsecond=0)
NODE, CLIENT = load_profile("node"), load_profile("client")


def authority(days: int | None = None) -> Authority:
    made = make_authority(load_profile("ca"), "test CA", NOW, days=days)
    return Authority(made.certificate, made.key)


CA = authority()


def openssl(*arguments: object) -> str:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def written(directory: Path, made: Issued) -> Path:
    path = directory / "made.pem"
    write_file(path, made.certificate_pem, private=False, replace=True)
    write_file(directory / "ca.pem", _pem(CA.certificate), private=False, replace=True)
    return path


def _pem(certificate: x509.Certificate) -> bytes:
    return Issued(certificate, CA.key).certificate_pem  # type: ignore[arg-type]


@promises.OPENSSL_AGREES
@pytest.mark.openssl
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_takes_a_node_as_server_and_as_client(tmp_path: Path, purpose: str) -> None:
    path = written(tmp_path, issue(NODE, "node1", CA, NOW))
    flags = ["-x509_strict", "-check_ss_sig", "-purpose", purpose]
    assert openssl("verify", *flags, "-CAfile", tmp_path / "ca.pem", path) == f"{path}: OK"


@promises.OPENSSL_AGREES
@pytest.mark.openssl
def test_openssl_takes_a_client_as_client_only(tmp_path: Path) -> None:
    path = written(tmp_path, issue(CLIENT, "admin", CA, NOW))
    verify = ["verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem", "-purpose"]
    assert openssl(*verify, "sslclient", path) == f"{path}: OK"
    assert "unsuitable certificate purpose" in openssl(*verify, "sslserver", path)


@promises.OPENSSL_AGREES
@pytest.mark.openssl
def test_openssl_reads_the_names_usages_and_dates_that_were_asked_for(tmp_path: Path) -> None:
    hosts = ["DNS:app.example.com", "IP:10.0.0.1", "IP:::1"]
    made = issue(NODE, "node1", CA, NOW, cluster="c1", hosts=hosts)
    path = written(tmp_path, made)
    text = openssl("x509", "-in", path, "-noout", "-text")
    assert "DNS:node1, URI:noti://c1/node1, DNS:app.example.com, IP Address:10.0.0.1" in text
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text
    assert "Public-Key: (256 bit)" in text
    assert "ASN1 OID: prime256v1" in text
    assert "CA:FALSE" in text
    assert (
        openssl("x509", "-in", path, "-noout", "-serial")
        == f"serial={serial_text(made.certificate)}"
    )
    until = (NOW + timedelta(days=90)).strftime("%b %e %H:%M:%S %Y GMT")
    assert openssl("x509", "-in", path, "-noout", "-enddate") == f"notAfter={until}"


def test_node_is_valid_for_90_days_and_at_once_on_a_slow_clock() -> None:
    certificate = issue(NODE, "node1", CA, NOW).certificate
    assert certificate.not_valid_after_utc == NOW + timedelta(days=90)
    assert certificate.not_valid_before_utc < NOW
    assert claims_of(certificate).profile == "node"


def test_nothing_outlives_its_ca() -> None:
    short = authority(days=10)
    made = issue(NODE, "node1", short, NOW, days=30)
    assert made.certificate.not_valid_after_utc == short.certificate.not_valid_after_utc


def test_name_longer_than_a_common_name_is_kept_whole_where_it_counts() -> None:
    name = "n" * 128
    assert claims_of(issue(NODE, name, CA, NOW).certificate).node_names == {name}


def test_certificate_bound_to_a_cluster_names_a_node_there_only() -> None:
    made = issue(NODE, "node1", CA, NOW, cluster="c1", hosts=["DNS:node2"])
    [node] = claims_of(made.certificate).nodes
    assert (node.name, node.cluster) == ("node1", "c1")


@pytest.mark.openssl
def test_ca_made_elsewhere_can_issue(tmp_path: Path) -> None:
    """Its key identifier is not made as ours, and its key is EdDSA, which has no separate hash."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "foreign CA")])
    foreign = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(b"foreign"), critical=False)
        .sign(key, None)
    )
    made = issue(NODE, "node1", Authority(foreign, key), NOW)
    path = written(tmp_path, made)
    (tmp_path / "ca.pem").write_bytes(_pem(foreign))
    assert openssl("verify", "-CAfile", tmp_path / "ca.pem", path) == f"{path}: OK"


def test_malformed_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="not appear to be an IPv4 or IPv6 address"):
        issue(NODE, "node1", CA, NOW, hosts=["IP:localhost"])


@pytest.mark.parametrize("kind", ["ca", "node", "client"])
def test_profiles_in_the_package_are_those_in_tls(kind: str) -> None:
    assert load_profile(kind) == load_profile(kind, ROOT / "tls")  # type: ignore[arg-type]
    assert (ROOT / "noti/certificates/profiles").resolve() == ROOT / "tls"


def test_profile_of_ones_own_is_used(tmp_path: Path) -> None:
    text = (ROOT / "tls/node.toml").read_text()
    (tmp_path / "node.toml").write_text(text.replace('curve = "P-256"', 'curve = "P-384"'))
    made = issue(load_profile("node", tmp_path), "node1", CA, NOW)
    assert made.key.curve.name == "secp384r1"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("days = 90", "days = 0"),
            r"node\.toml: days: Input should be greater than or equal to 1",
        ),
        (("serverAuth", "anything"), r"node\.toml: extended_key_usage\.0: Input should be"),
        (("DNS:", "HOST:"), r"node\.toml: names\.0: String should match"),
        (("DNS:{name}", "DNS:{nme}"), r"node\.toml: names\.0: "),
        (("days = 90", "days = 90\nday = 1"), r"node\.toml: day: Extra inputs are not permitted"),
        (("days = 90", "days = "), r"node\.toml is not valid TOML"),
    ],
)
def test_bad_profile_is_rejected(tmp_path: Path, change: tuple[str, str], line: str) -> None:
    text = (ROOT / "tls/node.toml").read_text()
    (tmp_path / "node.toml").write_text(text.replace(*change))
    with pytest.raises(ConfigInvalid, match=line):
        load_profile("node", tmp_path)


def test_missing_profile_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"ca\.toml cannot be read: No such file"):
        load_profile("ca", tmp_path)
