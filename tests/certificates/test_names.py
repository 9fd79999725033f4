"""Whom a certificate names, and which claims of a peer it carries."""

import pytest

from noti.certificates.names import NodeName, claims, name_rejection
from noti.errors import MessageInvalid
from tests.certificates.authority import CLIENT, SERVER, Wanted, authority, client, issue, node

CA = authority()


def test_dns_name_is_a_node_of_any_cluster() -> None:
    found = claims(node("node1", CA).der)
    assert found.nodes == (NodeName("node1"),)
    assert found.profile == "node"
    assert name_rejection(found, "node1", "c1") is None
    assert name_rejection(found, "node1", None) is None


def test_uri_is_a_node_of_its_cluster_only() -> None:
    found = claims(issue(Wanted(uris=("noti://c1/node1",)), CA).der)
    assert found.nodes == (NodeName("node1", "c1"),)
    assert name_rejection(found, "node1", "c1") is None
    assert name_rejection(found, "node1", "") is None, "this node does not know its cluster yet"
    rejected = name_rejection(found, "node1", "c2")
    assert rejected is not None
    assert rejected.reason == "cluster"
    assert str(rejected) == "the certificate of node node1 is for cluster c1, this is cluster c2"


def test_certificate_of_one_node_cannot_speak_for_another() -> None:
    rejected = name_rejection(claims(node("node2", CA).der), "node3", "c1")
    assert rejected is not None
    assert rejected.reason == "name"
    assert str(rejected) == "claims to be node 'node3', but its certificate is for node node2"


def test_host_names_beside_a_uri_name_no_node() -> None:
    found = claims(issue(Wanted(dns=("node2", "localhost"), uris=("noti://c1/node1",)), CA).der)
    assert found.node_names == {"node1"}
    assert found.hosts == ("node2", "localhost")


@pytest.mark.parametrize("name", ["node1", "*", "*.example.com", "no_de", ""])
def test_common_name_wildcards_and_foreign_names_name_nobody(name: str) -> None:
    wanted = Wanted(common_name="node1", dns=() if name == "node1" else (name,))
    rejected = name_rejection(claims(issue(wanted, CA).der), "node1", "c1")
    assert rejected is not None
    assert rejected.reason == "unnamed"
    assert "DNS:node1" in str(rejected)


def test_node_names_are_compared_as_they_are_written() -> None:
    assert name_rejection(claims(node("Node1", CA).der), "node1") is not None


def test_client_is_no_node() -> None:
    found = claims(client("admin", CA).der)
    assert found.profile == "client"
    assert found.client_names == {"admin"}
    rejected = name_rejection(found, "node1", "c1")
    assert rejected is not None
    assert rejected.reason == "usage"


@pytest.mark.parametrize(
    ("usages", "lacking"), [((SERVER,), "clientAuth"), ((CLIENT,), "serverAuth"), (None, "server")]
)
def test_node_needs_both_usages(usages: tuple[object, ...] | None, lacking: str) -> None:
    wanted = Wanted(dns=("node1",), usages=usages)  # type: ignore[arg-type]
    found = claims(issue(wanted, CA).der)
    rejected = name_rejection(found, "node1", "c1")
    assert found.profile is None
    assert rejected is not None
    assert rejected.reason == "usage"
    assert lacking in str(rejected)


def test_client_may_not_serve() -> None:
    wanted = Wanted(uris=("noti-client://admin",), usages=(SERVER, CLIENT))
    assert claims(issue(wanted, CA).der).profile is None


def test_random_bytes_are_a_message_error() -> None:
    with pytest.raises(MessageInvalid):
        claims(b"\x30\x03\x02\x01\x01")
