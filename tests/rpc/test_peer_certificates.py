"""Who may call what, and who is who."""

import pytest

from noti.certificates.rejections import Rejection
from noti.raft.ports import Hello
from noti.rpc.peer_certificates import PROVEN_MAX, READING_METHODS, PeerCertificates
from tests import promises
from tests.certificates.authority import CLIENT, Issued, Wanted, client, issue, node
from tests.rpc.tls_peers import cluster_authority

RAFT = "/noti.v1.Raft/Stream"
STATUS = "/notification.v1.Notification/GetServers"


def issued(wanted: Wanted) -> Issued:
    return issue(wanted, cluster_authority())


NODE_2 = node("node2", cluster_authority())
NODE_3 = node("node3", cluster_authority())
OPERATOR = client("operator", cluster_authority())
NOBODY = issued(Wanted())
HALF_A_NODE = issued(Wanted(dns=("node2",), usages=(CLIENT,)))


def reason(rejection: Rejection | None) -> str | None:
    return None if rejection is None else rejection.reason


@pytest.mark.parametrize(
    ("caller", "method", "expected"),
    [
        (NODE_2, RAFT, None),
        (NODE_2, STATUS, None),
        (OPERATOR, RAFT, "usage"),
        (OPERATOR, "/noti.v1.Something/New", "usage"),
        (NOBODY, STATUS, "unnamed"),
        (HALF_A_NODE, STATUS, "usage"),
        *((OPERATOR, method, None) for method in sorted(READING_METHODS)),
    ],
)
def test_nodes_may_call_everything_and_clients_may_read(
    caller: Issued, method: str, expected: str | None
) -> None:
    assert reason(PeerCertificates().call_rejection(caller.der, method)) == expected


def test_what_is_no_certificate_is_refused() -> None:
    assert reason(PeerCertificates().call_rejection(b"nonsense", STATUS)) == "other"
    hello = Hello("c", "2", "node2")
    assert reason(PeerCertificates().peer_rejection(b"nonsense", hello, "c")) == "other"


@pytest.mark.parametrize(
    ("caller", "expected"),
    [(NODE_2, None), (NODE_3, "name"), (OPERATOR, "usage"), (NOBODY, "unnamed")],
)
def test_a_peer_is_who_its_certificate_names(caller: Issued, expected: str | None) -> None:
    hello = Hello("c", "2", "node2")
    assert reason(PeerCertificates().peer_rejection(caller.der, hello, "c")) == expected


@promises.ONLY_CERTIFIED_PEERS
def test_nobody_comes_with_the_node_id_of_somebody_else() -> None:
    certificates = PeerCertificates()
    certificates.remember(Hello("c", "3", "node3"))
    rejection = certificates.peer_rejection(NODE_2.der, Hello("c", "3", "node2"), "c")
    assert rejection is not None
    assert rejection.reason == "name"
    assert "comes with the node id of node 'node3'" in rejection.text
    assert certificates.peer_rejection(NODE_3.der, Hello("c", "3", "node3"), "c") is None


def test_a_wiped_node_may_come_back_with_a_new_id() -> None:
    certificates = PeerCertificates()
    certificates.remember(Hello("c", "2", "node2"))
    assert certificates.peer_rejection(NODE_2.der, Hello("c", "2b", "node2"), "c") is None


def test_a_rejection_by_somebody_else_leaves_the_id_to_its_owner() -> None:
    certificates = PeerCertificates()
    # Node 2 is who it says, and gossip, say, knows better whose id this is: nothing is remembered.
    assert certificates.peer_rejection(NODE_2.der, Hello("c", "3", "node2"), "c") is None
    assert certificates.peer_rejection(NODE_3.der, Hello("c", "3", "node3"), "c") is None


def test_memory_is_bounded_however_many_ids_a_peer_invents() -> None:
    certificates = PeerCertificates()
    for number in range(PROVEN_MAX + 10):
        certificates.remember(Hello("c", str(number), "node2"))
    assert len(certificates._proven) == PROVEN_MAX
