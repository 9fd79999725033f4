import pytest

from tests.soak.setups import (
    PUBLIC_EVERY,
    Transport,
    labels_of,
    setups_of,
    transport_of,
)


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_every_run_has_nodes_with_and_without_tls_and_web_workers_somewhere(nodes: int) -> None:
    for seed in range(50):
        setups = setups_of(seed, nodes)
        assert len(setups) == nodes
        assert {one.has_tls for one in setups} == {True, False}
        assert max(one.workers for one in setups) >= 1
        assert setups == setups_of(seed, nodes)
    assert {one.workers for seed in range(50) for one in setups_of(seed, nodes)} == {0, 1, 2}


def test_each_transport_is_read_with_and_without_a_token() -> None:
    for transport in Transport:
        numbers = [number for number in range(40) if transport_of(number) is transport]
        assert {number % PUBLIC_EVERY == 0 for number in numbers} == {True, False}


def test_transports_of_a_run_are_all_but_http_2_without_tls() -> None:
    labels = labels_of(setups_of(1, 3), 40)
    assert len(labels) == 2 * len(Transport) - 1
    assert "SSE over HTTP/2" not in labels
    assert "SSE over HTTP/2, TLS" in labels
