"""Contexts made from real files, shaking hands in memory."""

import ssl
from pathlib import Path

import pytest

from noti.certificates.context import https_context, mutual_client_context, mutual_server_context
from noti.certificates.credentials import CertificateUse, Credentials, load_credentials
from noti.certificates.names import claims, name_rejection
from tests.certificates.authority import Issued, Wanted, authority, client, issue, node
from tests.certificates.handshake import shake_hands

CA = authority()


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(CA.pem)
    return path


def credentials(issued: Issued, ca: Path, use: CertificateUse = CertificateUse.NODE) -> Credentials:
    return load_credentials(*issued.write(ca.parent, "own"), ca, use=use)


def test_two_nodes_verify_each_other_and_see_names(ca: Path) -> None:
    one = mutual_server_context(credentials(node("node1", CA), ca))
    two = mutual_client_context(credentials(node("node2", CA), ca))
    outcome = shake_hands(one, two)
    assert outcome.succeeded
    assert outcome.server_object.version() == "TLSv1.3"
    assert outcome.server_object.selected_alpn_protocol() == "h2"
    for side, name in ((outcome.server_object, "node2"), (outcome.client_object, "node1")):
        der = side.getpeercert(binary_form=True)
        assert der is not None
        assert name_rejection(claims(der), name, "c1") is None


def test_client_is_verified_too(ca: Path) -> None:
    server = mutual_server_context(credentials(node("node1", CA), ca))
    calling = mutual_client_context(credentials(client("admin", CA), ca, CertificateUse.CLIENT))
    outcome = shake_hands(server, calling)
    assert outcome.succeeded
    der = outcome.server_object.getpeercert(binary_form=True)
    assert der is not None
    assert claims(der).profile == "client"


def test_intermediate_ca_is_sent_along(ca: Path, tmp_path: Path) -> None:
    middle = authority("middle", CA)
    certificate, key = node("node1", middle).write(tmp_path, "node1")
    certificate.write_bytes(certificate.read_bytes() + middle.pem)
    server = mutual_server_context(load_credentials(certificate, key, ca))
    assert shake_hands(server, mutual_client_context(credentials(node("node2", CA), ca))).succeeded


def test_bundle_of_old_and_new_ca_accepts_both(ca: Path) -> None:
    new = authority("new CA")
    ca.write_bytes(new.pem + CA.pem)
    old_node = credentials(node("node1", CA), ca)
    new_node = credentials(node("node2", new), ca)
    assert shake_hands(mutual_server_context(old_node), mutual_client_context(new_node)).succeeded
    assert shake_hands(mutual_server_context(new_node), mutual_client_context(old_node)).succeeded


def test_browser_is_offered_http2_and_tls_1_2(ca: Path) -> None:
    server = https_context(
        credentials(issue(Wanted(dns=("localhost",)), CA), ca, CertificateUse.HTTPS),
    )
    browser = ssl.create_default_context(cadata=CA.pem.decode())
    browser.set_alpn_protocols(["h2", "http/1.1"])
    browser.maximum_version = ssl.TLSVersion.TLSv1_2
    outcome = shake_hands(server, browser, "localhost")
    assert outcome.succeeded
    assert outcome.server_object.version() == "TLSv1.2"
    assert outcome.server_object.selected_alpn_protocol() == "h2"


def test_key_leaves_no_file_behind(ca: Path) -> None:
    own = credentials(node("node1", CA), ca)
    for path in ca.parent.iterdir():
        path.unlink()
    mutual_server_context(own)
    assert list(ca.parent.iterdir()) == []
    assert own.key_pem.decode() not in repr(own)
