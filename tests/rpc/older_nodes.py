"""Nodes that speak gRPC only, as releases before 0.7 do."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from noti.certificates.context import HTTP_2, MutualContexts
from tests.rpc.tls_peers import Fixed, new_contexts, node_tls

NO_BYTE = b"\xff\xff"


@contextmanager
def called_are_older() -> Iterator[None]:
    """Let nodes that are served here take whatever comes without TLS for HTTP/2."""
    with pytest.MonkeyPatch.context() as older:
        older.setattr("noti.rpc.sniffing.RAFT", NO_BYTE)
        yield


@contextmanager
def callers_are_older() -> Iterator[None]:
    """Let nodes dial with HTTP/2, where they have no TLS."""
    with pytest.MonkeyPatch.context() as older:
        older.setattr("noti.rpc.raft_streams.PLAIN_FIRST", HTTP_2)
        yield


@cache
def older_tls(*names: str) -> Fixed:
    """Return what a node of these names shows and trusts, whose ALPN knows HTTP/2 only."""
    contexts = new_contexts(*names)
    for context in (contexts.server, contexts.client):
        context.set_alpn_protocols([HTTP_2])
    return Fixed(contexts)


def with_older_server(*names: str) -> Fixed:
    """Return what a node shows that is called as an older one and dials as a new one."""
    return Fixed(MutualContexts(older_tls(*names).current.server, node_tls(*names).current.client))


def with_older_client(*names: str) -> Fixed:
    """Return what a node shows that dials as an older one and is called as a new one."""
    return Fixed(MutualContexts(node_tls(*names).current.server, older_tls(*names).current.client))
