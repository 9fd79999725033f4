"""What everybody may ask a node about itself, and what operators may."""

import json

import pytest

from tests import promises
from tests.http.stage import Node, client, hub, serving, serving_operators

SERVERS = [
    {"ServerID": "n1", "RPCAddress": "127.0.0.1:8400", "IsLeader": True},
    {"ServerID": "n2", "RPCAddress": "127.0.0.1:8500", "IsLeader": False},
]
LIVES = {"hostname": "host-1", "build": "test", "status": "up", "is_leader": True}


async def test_consistent_status_waits_for_a_majority_and_plain_status_does_not() -> None:
    node = Node(extra={"commit": 7})
    node.on_barrier = lambda: node.extra.update(commit=8)
    async with serving_operators(node) as address, client(address) as one:
        await one.request("/status")
        assert json.loads(await one.read_all())["commit"] == 7
        await one.request("/status?consistent=1")
        assert json.loads(await one.read_all())["commit"] == 8


async def test_liveness_readiness_and_status_report_what_the_node_reports() -> None:
    node = Node(extra={"commit": 7})
    async with serving_operators(node) as address, client(address) as one:
        answers = []
        for target in ["/liveness", "/readiness", "/status"]:
            response = await one.request(target)
            answers.append((response.status_code, json.loads(await one.read_all())))
    assert answers == [(200, LIVES), (200, SERVERS), (200, {"role": "leader", "commit": 7})]


async def test_operators_are_told_what_is_known_of_an_event() -> None:
    async with serving_operators(Node()) as address, client(address) as one:
        await one.request("/trace?id=a%2F%C3%BC&more=1")
        assert json.loads(await one.read_all())["id"] == "a/\u00fc"
        response = await one.request("/trace?ID=a")
        assert response.status_code == 400
        assert "/trace?id=" in json.loads(await one.read_all())["error"]


async def test_readiness_of_a_node_that_is_not_ready_is_503_with_the_list_and_why() -> None:
    async with serving_operators(Node(is_ready=False)) as address, client(address) as one:
        response = await one.request("/readiness")
        assert response.status_code == 503
        told = json.loads(await one.read_all())
        assert told["troubles"] == [{"trouble": "quorum"}]
        assert len(told["servers"]) == 2


async def test_readiness_names_troubles_that_do_not_keep_browsers_away() -> None:
    """In a header: the body is a list that programs of bb-dist-noti know."""
    text = "events are not read: \r\nInjected: \u00fc" + "x" * 1000
    trouble: dict[str, object] = {"trouble": "source", "since": "2026-01-01", "text": text}
    node = Node(told=[trouble])
    async with serving_operators(node) as address, client(address) as one:
        response = await one.request("/readiness")
        assert response.status_code == 200
        assert len(json.loads(await one.read_all())) == 2
        [value] = [value for name, value in response.headers if name == b"noti-trouble"]
    said = "source; since=2026-01-01; events are not read: ??Injected: ?x"
    assert value.startswith(said.encode())
    assert len(value) == 500


@promises.NODES_NOT_SHOWN
@pytest.mark.parametrize("is_ready", [True, False])
async def test_everybody_gets_the_probes_of_bb_dist_noti_and_nothing_else_of_a_node(
    is_ready: bool,
) -> None:
    text = "10.0.0.7:4222 does not answer"
    node = Node(is_ready=is_ready, extra={"secret": 1}, told=[{"trouble": "source", "text": text}])
    async with serving(hub(), node) as address, client(address) as one:
        assert (await one.request("/liveness")).status_code == 200
        assert json.loads(await one.read_all()) == LIVES
        response = await one.request("/readiness")
        assert response.status_code == (200 if is_ready else 503)
        assert json.loads(await one.read_all()) == SERVERS
        assert b"noti-trouble" not in dict(response.headers)
        for path in ("/status", "/metrics", "/status?consistent=1"):
            assert (await one.request(path)).status_code == 404
            assert "at --ops-addr, port 8403" in await one.read_all()
    async with serving_operators(node) as address, client(address) as operator:
        assert (await operator.request("/category")).status_code == 404
        assert "events are at --http-addr" in await operator.read_all()


async def test_pages_of_other_origins_may_not_read_what_operators_are_told() -> None:
    async with serving_operators() as address, client(address) as page:
        response = await page.request("/status", [("origin", "https://evil.example")])
        assert not any(b"access-control" in name for name, _ in response.headers)
