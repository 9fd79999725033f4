"""What a node reports about itself, over HTTP and gRPC.

All answers are read from the node's parts when they are asked for; nothing is kept or changed.
"""

import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, assert_never

from noti import __version__
from noti.history.store import Store
from noti.membership.identity import Identity
from noti.membership.ports import RaftStatus
from noti.membership.tags import (
    ALIVE_STATES,
    TAG_HTTP,
    TAG_NODE_ID,
    TAG_OPS,
    TAG_RPC,
    TAG_SOURCE,
    TAG_SUPPORTS,
    TAG_VERSION,
)
from noti.raft.core.events import Role
from noti.raft.core.messages import NodeId
from noti.raft.core.status import Status
from noti.raft.health import Trouble
from noti.rpc.answers import NodeRole, RoleName, ServerInfo
from noti.swim.core.messages import Member
from noti.tracing.lookup import EventLookup


class ReplicaHealth(RaftStatus, Protocol):
    """The state of Raft on this node, and what ails it."""

    def is_healthy(self) -> bool:
        """Return whether the node has caught up, is in touch with a leader, and can write."""

    def troubles(self) -> tuple[Trouble, ...]:
        """Return what ails the node now."""


class Barrier(Protocol):
    """The way to the leader."""

    async def read(self) -> None:
        """Return when everything committed before this call is applied."""


class IntakeReport(Protocol):
    """The part of the leader's door that is reported."""

    def status(self) -> dict[str, object]:
        """Return what waits, and who is not waited for."""

    def pressures(self) -> Mapping[NodeId, float]:
        """Return how full each node is; empty on a node that does not lead."""


class Report:
    """Answers about one node; `noti.http.node_view.NodeView` and `noti.rpc.ports.NodeReport`."""

    def __init__(
        self,
        identity: Identity,
        replica: ReplicaHealth,
        leader: Barrier,
        store: Store,
        build: str,
        *,
        members: Callable[[], tuple[Member, ...]],
        clients: Callable[[], int],
        source: Callable[[], dict[str, object]],
        intake: IntakeReport,
        web_workers: Callable[[], list[dict[str, object]]] = list,
        lookup: EventLookup,
    ) -> None:
        """Read from these parts; all of them answer at any time."""
        self._identity = identity
        self._replica = replica
        self._leader = leader
        self._store = store
        self._build = build
        self._members = members
        self._clients = clients
        self._source = source
        self._intake = intake
        self._web_workers = web_workers
        self._lookup = lookup

    @property
    def node_id(self) -> str:
        """Which node of the cluster this is."""
        return self._identity.node_id

    @property
    def hostname(self) -> str:
        """The machine's or pod's name."""
        return socket.gethostname()

    @property
    def build(self) -> str:
        """Which build this is, for people."""
        return self._build

    # --- roles ------------------------------------------------------------------------------------

    def is_leader(self) -> bool:
        """Whether this node leads and has caught up with its predecessors."""
        return self._replica.status().leads_ready

    def ready(self) -> bool:
        """Whether browsers may be sent here: caught up, in touch with a leader, able to write."""
        return self._replica.is_healthy()

    def troubles(self) -> list[dict[str, object]]:
        """What ails this node, since when: consensus, and the reader of events."""
        troubles: list[dict[str, object]] = [
            {
                "trouble": trouble.kind.value,
                "since": _time(trouble.since_ms),
                "for_s": round(trouble.for_s, 1),
                "text": trouble.text,
            }
            for trouble in self._replica.troubles()
        ]
        source = self._source()
        return troubles + self._missing_source(source) + _troubles_of(source)

    def _missing_source(self, source: Mapping[str, Any]) -> list[dict[str, object]]:
        """Return the trouble of a leader without a source, where another node has one."""
        if source["state"] != "none" or not self.is_leader():
            return []
        having = sorted(
            member.name
            for member in self._members()
            if TAG_SOURCE in member.tags and member.state in ALIVE_STATES
        )
        if not having:
            return []
        text = (
            "events are not read: this node leads and has no source of events, as"
            f" {', '.join(having)} has; give all nodes the same nats_url, and restart this one"
        )
        return [{"trouble": "source", "since": None, "for_s": None, "text": text}]

    async def barrier(self) -> None:
        """Return when everything committed before this call is applied; a majority confirms it."""
        await self._leader.read()

    def serving(self) -> bool:
        """Whether gRPC health is `SERVING`: as readiness over HTTP."""
        return self.ready()

    def servers(self) -> list[ServerInfo]:
        """The members of the Raft configuration, sorted by name."""
        status = self._replica.status()
        seen = self._seen()
        servers = []
        for node_id in status.configuration.members:
            member = seen.get(node_id)
            name = member.name if member else node_id
            address = member.tags.get(TAG_RPC, "") if member else ""
            servers.append(ServerInfo(name, address, is_leader=node_id == status.leader))
        return sorted(servers, key=lambda server: server.id)

    def role(self) -> NodeRole:
        """What this node is, with the term that makes it comparable."""
        status = self._replica.status()
        leader = self._seen().get(status.leader or "")
        return NodeRole(self._identity.name, self._part(status), status.term, _name(leader))

    def _part(self, status: Status) -> RoleName:
        match status.role:
            case Role.LEADER:
                return "leader"
            case Role.CANDIDATE | Role.PRE_CANDIDATE:
                return "candidate"
            case Role.FOLLOWER:
                voter = status.configuration.is_voter(self._identity.node_id)
                return "follower" if voter else "learner"
            case _:
                assert_never(status.role)

    # --- status -----------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """Everything at once, ready for JSON."""
        status = self._replica.status()
        seen = self._seen()
        leader = seen.get(status.leader) if status.leader else None
        pressures = self._intake.pressures()
        return {
            "node": {
                "name": self._identity.name,
                "node_id": self._identity.node_id,
                "cluster_id": status.configuration.cluster_id or None,
                "version": __version__,
                "build": self._build,
                "hostname": self.hostname,
            },
            "ready": self.ready(),
            "troubles": self.troubles(),
            "role": status.role.value,
            "term": status.term,
            "leader": leader.name if leader else status.leader,
            "commit": status.commit_index,
            "applied": status.applied_index,
            "voters": len(status.configuration.voters),
            "learners": len(status.configuration.learners),
            "level": self._store.level,
            "changing_members": bool(status.configuration.outgoing),
            "members": [
                _describe(member, status, pressures)
                for member in sorted(self._members(), key=lambda member: member.name)
            ],
            "clients": self._clients(),
            "web_workers": self._web_workers(),
            "store": {
                "first_seq": self._store.first_seq,
                "last_seq": self._store.last_seq,
                "history_size": self._store.limits.count,
                "history_bytes": self._store.size_bytes,
            },
            "source": self._source(),
            "intake": self._intake.status(),
        }

    async def trace(self, event_id: str) -> dict[str, object]:
        """Return what is known here of an event, ready for JSON."""
        return await self._lookup(event_id)

    def _seen(self) -> Mapping[NodeId, Member]:
        return {member.tags.get(TAG_NODE_ID, ""): member for member in self._members()}


def _time(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _troubles_of(source: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return one for each stream that is not read, which is named where there are several."""
    streams = source.get("streams") or [source]
    troubles = []
    for stream in streams:
        if stream.get("error") is None:
            continue
        which = f" of stream {stream['name']}" if len(streams) > 1 else ""
        shown = {key: stream.get(key) for key in ("since", "for_s")}
        text = f"events{which} are not read: {stream['error']}"
        troubles.append({"trouble": "source", **shown, "text": text})
    return troubles


def _name(member: Member | None) -> str:
    return "" if member is None else member.name


def _describe(
    member: Member, status: Status, pressures: Mapping[NodeId, float]
) -> dict[str, object]:
    node_id = member.tags.get(TAG_NODE_ID, "")
    if node_id == status.leader:
        role = Role.LEADER.value
    elif status.configuration.is_voter(node_id):
        role = Role.FOLLOWER.value
    else:
        role = "learner" if node_id in status.configuration.learners else "none"
    return {
        "name": member.name,
        "node_id": node_id,
        "state": member.state.name.lower(),
        "role": role,
        "rpc": member.tags.get(TAG_RPC, ""),
        "http": member.tags.get(TAG_HTTP, ""),
        "ops": member.tags.get(TAG_OPS, ""),
        "version": member.tags.get(TAG_VERSION, ""),
        "supports": member.tags.get(TAG_SUPPORTS, ""),
        "pressure": pressures.get(node_id),
    }
