"""Certificates and contexts for tests of RPC: what one CA issued, and what it should not have."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from noti.certificates.context import MutualContexts, mutual_contexts
from noti.certificates.credentials import load_credentials
from tests.certificates.authority import Issued, Wanted, authority, issue


@cache
def cluster_authority() -> Issued:
    """The CA of all nodes of this test run."""
    return authority()


@dataclass(frozen=True)
class Fixed:
    """Contexts that are never renewed."""

    current: MutualContexts


@cache
def node_tls(*names: str) -> Fixed:
    """Return what a node of these names shows and trusts."""
    return Fixed(new_contexts(*names))


def new_contexts(*names: str) -> MutualContexts:
    """Issue a certificate to a node, and return its contexts, which nobody else has."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = issue(Wanted(dns=names), cluster_authority()).write(directory, "node")
        ca = directory / "ca.pem"
        ca.write_bytes(cluster_authority().pem)
        return mutual_contexts(load_credentials(*paths, ca))
