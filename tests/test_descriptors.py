"""Promises about file descriptors: who gets how many, and what happens when none is left."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.config import Config
from noti.descriptors import (
    LEAST,
    PEERS_MAX,
    QUIET_S,
    RESERVE,
    Acceptor,
    Episode,
    Shares,
    rpc_unready_max,
    shares,
    shares_of,
)
from noti.errors import LocalError
from tests import promises

WANTED = Shares(50_000, 4096, 4096, 1024)


@given(
    st.integers(LEAST, 2**31),
    st.builds(Shares, *[st.integers(1, 100_000) for _ in range(4)]),
)
def test_shares_leave_the_reserve_and_exceed_no_wish(limit: int, wanted: Shares) -> None:
    got = shares(limit, wanted)
    for name in ("streams", "arriving", "http", "rpc"):
        assert 0 < getattr(got, name) <= getattr(wanted, name)
    used = got.streams + got.arriving + got.http + got.rpc + 2 * rpc_unready_max(got.rpc)
    assert used <= limit - RESERVE


def test_streams_get_most_of_few_descriptors_and_all_wishes_of_many() -> None:
    few = shares(300, WANTED)
    assert few.streams > few.arriving + few.http
    assert shares(2**31, WANTED) == WANTED


def test_browsers_have_the_share_of_rpc_where_there_is_none() -> None:
    assert shares_of(Config(name="n"), with_rpc=False).rpc == 0
    with_rpc, without = shares(20_000, WANTED), shares(20_000, replace(WANTED, rpc=0))
    assert without.streams > with_rpc.streams + with_rpc.rpc


def test_too_few_descriptors_for_anything_are_refused_with_the_remedy() -> None:
    with pytest.raises(LocalError, match=r"ulimit -Hn"):
        shares(LEAST - 1, WANTED)
    assert PEERS_MAX < LEAST


def refused(listener: str) -> float:
    labels = {"listener": listener, "reason": "descriptors"}
    return REGISTRY.get_sample_value("noti_connections_rejected_total", labels) or 0.0


def test_an_episode_is_logged_when_it_begins_and_when_it_is_over() -> None:
    episode = Episode("ops", "node", "raise it")
    with capture_logs() as lines:
        for second in range(5):
            episode.reject(float(second))
            episode.settle(float(second))
        assert len(lines) == 1
        episode.settle(4 + QUIET_S)
        episode.settle(5 + QUIET_S)
        assert [line["event"] for line in lines[1:]] == ["connections are taken again"]
        assert lines[1]["rejected"] == 5
        episode.reject(100.0)
        assert len(lines) == 3, "the next one is told again"


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Take all descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with suppress(OSError):
            taken.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(256))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@promises.CONNECTIONS_BOUNDED
def test_without_a_descriptor_everybody_is_closed_at_once_and_it_is_logged_once() -> None:
    before = refused("http")
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Acceptor("http") as acceptor,
    ):
        listening.setblocking(False)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(20)]
        with capture_logs() as lines, no_descriptor_left():
            for _ in clients:
                assert acceptor.accept(listening, 1.0) is None
                assert not acceptor.stuck
            with pytest.raises(BlockingIOError):
                acceptor.accept(listening, 1.0)
        for client in clients:
            assert client.recv(100) == b""
            client.close()
        assert len(lines) == 1
        assert refused("http") == before + 20
        with socket.create_connection(listening.getsockname()):
            accepted = acceptor.accept(listening, 2.0)
            assert accepted is not None
            accepted[0].close()
