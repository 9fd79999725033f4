"""What a node reports about itself."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from noti.history.store import Store
from noti.membership.identity import Identity
from noti.membership.tags import TAG_HTTP, TAG_NODE_ID, TAG_RPC, TAG_SOURCE
from noti.raft.core.config import RaftConfig
from noti.raft.core.events import Role
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import HardState, NodeId
from noti.raft.core.status import Status
from noti.raft.health import Kind, Trouble
from noti.rpc.answers import NodeRole, ServerInfo
from noti.status import Report
from noti.swim.core.messages import Member, MemberState
from noti.tracing.lookup import EventLookup, ProcessReport, SentEvent
from noti.tracing.refusals import Refusals
from noti.tracing.trail import EventTrail

NOBODY = Raft(
    RaftConfig("id-a"), HardState(), snapshot=None, entries=(), rng=random.Random(1), now=0.0
).status()
THREE = replace(NOBODY, configuration=Configuration("c", ("id-a", "id-b", "id-c")), term=4)


class Parts:
    """Everything that a report reads."""

    def __init__(self, status: Status = THREE) -> None:
        self.now = status
        self.touch = True
        self.asked = 0
        self.seen: list[Member] = []
        self.source: dict[str, object] = {"state": "reading", "error": None}

    def status(self) -> Status:
        return self.now

    def is_healthy(self) -> bool:
        return self.touch

    def troubles(self) -> tuple[Trouble, ...]:
        return () if self.touch else (Trouble(Kind.DISK, for_s=12.34, since_ms=1_700_000_000_000),)

    async def read(self) -> None:
        self.asked += 1
        await trio.lowlevel.checkpoint()

    def report(self) -> Report:
        store = Store()
        return Report(
            identity=Identity("a", "id-a"),
            replica=self,
            leader=self,
            store=store,
            build="b1",
            members=lambda: tuple(self.seen),
            clients=lambda: 3,
            source=lambda: self.source,
            intake=Door(),
            lookup=EventLookup("a", store, Refusals(lambda: 0), Browsers()),
        )


class Browsers:
    """A node's browsers, none of which was sent anything."""

    trail = EventTrail(lambda: 0)

    async def known_of(self, event_id: str, seqs: Sequence[int]) -> list[ProcessReport]:
        return [ProcessReport(0, [SentEvent(seq, 0, complete=True) for seq in seqs], [])]


class Door:
    """A leader's door at which one command waits."""

    def status(self) -> dict[str, object]:
        return {"held": 1, "disregarded": []}

    def pressures(self) -> dict[NodeId, float]:
        return {"id-b": 0.25}


def member(name: str, **tags: str) -> Member:
    return Member(name, ("10.0.0.1", 8401), tags, MemberState.ALIVE, 1)


def node(name: str) -> Member:
    tags = {TAG_NODE_ID: f"id-{name}", TAG_RPC: f"{name}:8400", TAG_HTTP: f"{name}:8402"}
    return member(name, **tags)


def test_servers_are_the_members_of_the_cluster_by_name_and_one_leads() -> None:
    parts = Parts(replace(THREE, leader="id-b"))
    parts.seen = [node("c"), node("b"), node("a"), node("stranger")]
    assert parts.report().servers() == [
        ServerInfo("a", "a:8400", is_leader=False),
        ServerInfo("b", "b:8400", is_leader=True),
        ServerInfo("c", "c:8400", is_leader=False),
    ]


def test_member_that_gossip_does_not_know_is_listed_by_its_id() -> None:
    parts = Parts()
    parts.seen = [node("a"), node("b")]
    assert ServerInfo("id-c", "", is_leader=False) in parts.report().servers()


def test_nobody_is_called_leader_while_there_is_none() -> None:
    """Also not a member of the gossip pool that shows no id at all."""
    parts = Parts()
    parts.seen = [member("serf-agent"), node("a")]
    status = parts.report().status()
    assert status["leader"] is None
    assert [m["role"] for m in status["members"]] == ["follower", "none"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("seen", "expected"), [(True, "b"), (False, "id-b")])
def test_leader_is_named_if_gossip_knows_its_name(seen: bool, expected: str) -> None:
    parts = Parts(replace(THREE, leader="id-b"))
    parts.seen = [node("b")] if seen else []
    assert parts.report().status()["leader"] == expected


def test_status_reports_everything_and_is_ready_for_json() -> None:
    parts = Parts(replace(THREE, role=Role.LEADER, leader="id-a", commit_index=9, applied_index=8))
    newer = member("b", **node("b").tags, version="0.7.0", level="1")
    parts.seen = [newer, node("a"), node("z")]
    status = json.loads(json.dumps(parts.report().status()))
    assert status["node"]["name"] == "a"
    assert status["node"]["node_id"] == "id-a"
    assert status["node"]["cluster_id"] == "c"
    assert status["node"]["build"] == "b1"
    wanted = {"ready": True, "role": "leader", "term": 4, "leader": "a", "commit": 9, "applied": 8}
    assert wanted.items() <= status.items()
    assert status["clients"] == 3
    assert status["source"] == parts.source
    assert [m["name"] for m in status["members"]] == ["a", "b", "z"]
    assert [m["role"] for m in status["members"]] == ["leader", "follower", "none"]
    assert status["members"][1]["rpc"] == "b:8400"
    assert status["members"][1]["http"] == "b:8402"
    assert status["members"][1]["state"] == "alive"
    assert [m["pressure"] for m in status["members"]] == [None, 0.25, None]
    assert status["intake"] == {"held": 1, "disregarded": []}
    assert status["store"]["last_seq"] == 0
    assert status["level"] == 0
    assert [(m["version"], m["supports"]) for m in status["members"]] == [
        ("", ""),
        ("0.7.0", "1"),
        ("", ""),
    ]


def test_node_without_a_cluster_reports_that() -> None:
    report = Parts(NOBODY).report()
    node_status = report.status()["node"]
    assert isinstance(node_status, dict)
    assert node_status["cluster_id"] is None


def test_leader_counts_as_one_only_when_it_has_caught_up() -> None:
    parts = Parts(replace(THREE, role=Role.LEADER, leader="id-a"))
    assert not parts.report().is_leader()
    parts.now = replace(parts.now, leads_ready=True)
    assert parts.report().is_leader()


def test_status_reports_troubles_with_the_time_at_which_they_began() -> None:
    parts = Parts()
    assert parts.report().status()["troubles"] == []
    parts.touch = False
    [trouble] = parts.report().troubles()
    assert parts.report().status()["troubles"] == [trouble]
    assert trouble == {
        "trouble": "disk",
        "since": "2023-11-14T22:13:20.000+00:00",
        "for_s": 12.3,
        "text": "the disk does not answer; this node neither leads nor votes until it does",
    }


def test_each_stream_that_cannot_be_read_is_a_trouble_and_named() -> None:
    parts = Parts()
    bad = {"state": "waiting", "since": "2026-07-23T10:00:00.000+00:00", "for_s": 2.0}
    streams: list[dict[str, object]] = [
        {"name": "jobs", **bad, "error": "NATS: no"},
        {"name": "orders", "state": "reading", "error": None},
        {"name": "users", **bad, "error": "NATS: never"},
    ]
    parts.source = {**streams[0], "streams": streams}
    assert [trouble["text"] for trouble in parts.report().troubles()] == [
        "events of stream jobs are not read: NATS: no",
        "events of stream users are not read: NATS: never",
    ]


def test_source_that_cannot_be_read_is_a_trouble() -> None:
    parts = Parts()
    since = "2023-11-14T22:13:20.000+00:00"
    parts.source = {"state": "waiting", "error": "NATS: no", "since": since, "for_s": 2.0}
    assert parts.report().troubles() == [
        {
            "trouble": "source",
            "since": since,
            "for_s": 2.0,
            "text": "events are not read: NATS: no",
        }
    ]


@pytest.mark.parametrize("touch", [True, False])
def test_readiness_is_the_same_for_http_and_grpc(touch: bool) -> None:
    parts = Parts()
    parts.touch = touch
    assert parts.report().ready() is touch
    assert parts.report().serving() is touch


async def test_barrier_is_left_to_the_way_to_the_leader() -> None:
    parts = Parts()
    await parts.report().barrier()
    assert parts.asked == 1


@pytest.mark.parametrize(
    ("role", "voters", "expected"),
    [
        (Role.LEADER, ("id-a", "id-b"), "leader"),
        (Role.PRE_CANDIDATE, ("id-a", "id-b"), "candidate"),
        (Role.CANDIDATE, ("id-a", "id-b"), "candidate"),
        (Role.FOLLOWER, ("id-a", "id-b"), "follower"),
        (Role.FOLLOWER, ("id-b",), "learner"),
    ],
)
def test_role_comes_with_term_and_name_of_the_leader(
    role: Role, voters: tuple[str, ...], expected: str
) -> None:
    parts = Parts(
        replace(THREE, role=role, leader="id-b", configuration=Configuration("c", voters))
    )
    parts.seen = [node("a"), node("b")]
    told = parts.report().role()
    assert (told.name, told.role, told.term, told.leader) == ("a", expected, 4, "b")


def test_role_names_no_leader_that_gossip_does_not_know() -> None:
    assert Parts(replace(THREE, leader="id-b")).report().role().leader == ""
    assert Parts().report().role() == NodeRole("a", "follower", 4, "")


def test_leader_without_a_source_is_in_trouble_where_another_node_has_one() -> None:
    """The others would read, but only the leader does; nothing would say that nobody reads."""
    parts = Parts(replace(THREE, role=Role.LEADER, leader="id-a", leads_ready=True))
    parts.source = {"state": "none", "text": "no source"}
    parts.seen = [node("a"), node("b")]
    assert parts.report().troubles() == []
    other = node("c")
    parts.seen.append(replace(other, tags={**other.tags, TAG_SOURCE: "nats"}))
    [trouble] = parts.report().troubles()
    assert "as c has" in str(trouble["text"])
    parts.now = THREE
    assert parts.report().troubles() == []
