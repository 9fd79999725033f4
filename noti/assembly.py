"""Makes the parts of a node, out of its configuration, its disk and the rest of the world.

Here the rooms meet: each part gets the other parts that it needs. Nothing is started here; see
`node.py`.
"""

from dataclasses import dataclass, replace
from functools import partial

from prometheus_client import Gauge

from noti import __version__, telemetry
from noti.address import Address, format_address
from noti.authorization.revoking import Revoking
from noti.authorization.service import Authorization
from noti.config import Config
from noti.errors import MessageInvalid, StorageCorrupt
from noti.history.levels import TRACED_EVENTS
from noti.history.limits import HistoryLimits
from noti.history.store import Store, StoreDecoder, decode_store
from noti.http.clients import disconnect_all
from noti.membership.admission import PeerAdmission
from noti.membership.bootstrap import Bootstrap
from noti.membership.controller import MembershipController
from noti.membership.decommission import Decommission
from noti.membership.discovery import Discovery
from noti.membership.identity import (
    Identity,
    load_identity,
    load_promise,
    make_identity,
    save_promise,
)
from noti.membership.level_raising import LevelRaising
from noti.membership.node_names import NodeNames, load_names
from noti.membership.operator_requests import OperatorRequests
from noti.membership.tags import (
    TAG_EXPECT,
    TAG_HTTP,
    TAG_NODE_ID,
    TAG_OPS,
    TAG_RPC,
    TAG_SOURCE,
    TAG_SUPPORTS,
    TAG_VERSION,
    alive_and_dead,
    name_of,
)
from noti.membership.voters import VoterLimits
from noti.presence.announcing import Announcing
from noti.presence.commits import Commits
from noti.presence.dead_nodes import DeadNodes
from noti.presence.presence import Presence
from noti.publishing.limits import Limits
from noti.publishing.nats.bridge import Bridge, source_status
from noti.publishing.nats.mapping import mapping_of
from noti.publishing.publisher import Publisher
from noti.raft.core.config import KEEP_ENTRIES, LOG_KEEP_BYTES, RaftConfig
from noti.raft.core.machine import Raft
from noti.raft.core.messages import NodeId
from noti.raft.core.pacing import Pacing, report_of
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX
from noti.raft.forwarder import Forwarder
from noti.raft.intake import Intake
from noti.raft.peers import Peers
from noti.raft.ports import Hello
from noti.raft.replica import Replica
from noti.raft.snapshot_taker import SNAPSHOT_EVERY_BYTES
from noti.raft.storage.wal import SEGMENT_BYTES, Recovered, Wal
from noti.status import Report
from noti.swim.core.sealing import Encryption
from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from noti.swim.key_file import GossipKeys, load_gossip_keys
from noti.tracing.lookup import EventLookup
from noti.tracing.refusals import Refusals
from noti.tracing.taking import TakenTraces
from noti.world import World

_log_memory_max = Gauge(
    "noti_raft_log_memory_bytes_max", "Log entries in memory above which those on disk leave it"
)


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How large the log may get. The defaults suit every cluster; tests make it small."""

    snapshot_every_bytes: int = SNAPSHOT_EVERY_BYTES
    keep_entries: int = KEEP_ENTRIES
    keep_bytes: int = LOG_KEEP_BYTES
    segment_bytes: int = SEGMENT_BYTES


@dataclass(frozen=True)
class PresenceParts:
    """Who is subscribed, where it is to be known."""

    presence: Presence
    announcing: Announcing
    dead_nodes: DeadNodes


@dataclass(frozen=True)
class Parts:
    """The parts of one node, made and not yet started."""

    identity: Identity
    replica: Replica
    intake: Intake
    peers: Peers
    forwarder: Forwarder
    publisher: Publisher
    admission: PeerAdmission
    report: Report
    gossip_keys: GossipKeys | None
    """What keeps the keys of gossip; None when it has none."""
    gossip: Gossip
    discovery: Discovery
    decommission: Decommission
    operator_requests: OperatorRequests
    controller: MembershipController
    level_raising: LevelRaising
    limits: Limits
    authorization: Authorization
    revoking: Revoking
    bridges: tuple[Bridge, ...]
    """One for each stream that is read."""
    presence: PresenceParts | None


async def assemble(config: Config, world: World, log_limits: LogLimits) -> Parts:
    """Read the data directory and make all parts from what it holds.

    Raises `StorageError` when this node cannot use it, `ConfigInvalid` for a file that a setting
    names.
    """
    identity, wal, recovered, store = await _recover(config, world, log_limits)
    promised = await load_promise(world.disk)
    clock, rng = world.clock, world.rng

    def name_of_node(node_id: NodeId) -> str | None:
        return name_of(gossip.members(), node_id)

    replica = _replica(config, world, identity, store, wal, recovered, log_limits)
    gossip_keys = await load_gossip_keys(config, world.disk)
    gossip = _gossip(config, world, gossip_keys)
    pacing = Pacing(config.pacing_s, reported_within_s=config.election_timeout_ms / 1000)
    intake = Intake(
        identity.node_id, replica, pacing, clock, partial(_backlog, world), name_of_node
    )
    forwarder = Forwarder(identity.node_id, replica, intake, clock)

    hello = partial(_hello, identity, replica, store, world.supports)
    is_member = partial(_is_member, replica)
    peers = Peers(world.rpc, hello, forwarder, clock, rng, name_of_node, is_member=is_member)
    discovery = Discovery(
        gossip,
        replica,
        peers.update,
        node_id=identity.node_id,
        bootstrap=_bootstrap(config, identity, promised),
        save_promise=partial(save_promise, world.disk),
        names=NodeNames(world.disk, peers.names, await load_names(world.disk)),
        clock=clock,
    )
    decommission = Decommission(
        identity.node_id, gossip, replica, forwarder, discovery.show_leaving, clock
    )
    refusals = Refusals(clock.wall_ms)
    traces = TakenTraces(world.tracer, lambda: store.level >= TRACED_EVENTS, refusals)
    bridges = _bridges(config, world, intake, store, traces)
    report = _report(world, identity, replica, forwarder, store, gossip, bridges, intake, refusals)
    return Parts(
        identity=identity,
        replica=replica,
        intake=intake,
        peers=peers,
        forwarder=forwarder,
        publisher=Publisher(forwarder, clock, rng, id_of=store.id_of, traces=traces),
        admission=PeerAdmission(hello, name_of_node, is_member, peers.serve),
        report=report,
        gossip_keys=gossip_keys,
        gossip=gossip,
        discovery=discovery,
        decommission=decommission,
        operator_requests=OperatorRequests(
            identity.name, decommission.leave, decommission.live_voters, gossip
        ),
        controller=MembershipController(
            gossip, replica, forwarder.leaving, peers.connected, clock, voter_limits_of(config)
        ),
        level_raising=_level_raising(config, world, identity, replica, store, peers),
        authorization=_authorization(config, world, store),
        revoking=Revoking(forwarder.propose, clock),
        limits=Limits(replica, store, history_limits_of(config), clock),
        bridges=tuple(bridges.values()),
        presence=_presence(config, world, identity, store, forwarder, replica, gossip),
    )


def _report(
    world: World,
    identity: Identity,
    replica: Replica,
    forwarder: Forwarder,
    store: Store,
    gossip: Gossip,
    bridges: dict[str, Bridge],
    intake: Intake,
    refusals: Refusals,
) -> Report:
    return Report(
        identity,
        replica,
        forwarder,
        store,
        telemetry.build(),
        members=gossip.members,
        clients=lambda: world.clients.hub.clients,
        source=partial(source_status, bridges),
        intake=intake,
        web_workers=world.clients.processes,
        lookup=EventLookup(identity.name, store, refusals, world.clients),
    )


def _presence(
    config: Config,
    world: World,
    identity: Identity,
    store: Store,
    forwarder: Forwarder,
    replica: Replica,
    gossip: Gossip,
) -> PresenceParts | None:
    if not config.subscriptions:
        return None
    table, clock = store.subscriptions, world.clock

    def commits() -> Commits:
        return Commits(forwarder, clock, world.rng)

    announcing = Announcing(
        identity.node_id,
        table,
        commits(),
        clock,
        world.make_id,
        workers=len(world.clients.processes()),
    )
    world.clients.hub.observe(announcing)
    return PresenceParts(
        Presence(table, commits(), clock, world.make_id),
        announcing,
        DeadNodes(
            table,
            commits(),
            replica.is_ready_leader,
            lambda: alive_and_dead(gossip.members()),
            clock,
        ),
    )


def _bridges(
    config: Config, world: World, intake: Intake, store: Store, traces: TakenTraces
) -> dict[str, Bridge]:
    return {
        stream.name: Bridge(
            stream.name,
            world.sources[stream.name],
            mapping_of(stream).event_of,
            intake,
            store.floor,
            world.clock,
            world.rng,
            traces=traces,
        )
        for stream in config.streams
        if stream.name in world.sources
    }


def voter_limits_of(config: Config) -> VoterLimits:
    """Return how many nodes vote, and how long they may be absent, by the settings."""
    return VoterLimits(config.voters_max, hold_down_s=config.voter_hold_down_s)


def history_limits_of(config: Config) -> HistoryLimits:
    """Return what history keeps at most, by the settings."""
    return HistoryLimits(
        count=config.history_size,
        size_bytes=config.history_bytes,
        age_ms=round(config.history_max_age_s * 1000),
        per_topic=config.history_per_topic,
        topics_max=config.topics_max,
    )


def tags_of(
    config: Config, identity: Identity, supports: int, rpc_addr: Address, http_addr: Address
) -> dict[str, str]:
    """Return what a node shows in gossip; the addresses have the ports that are really bound."""
    shown = {TAG_SOURCE: "nats"} if config.streams else {}
    if (ops_addr := config.ops_advertised) is not None:
        shown[TAG_OPS] = format_address(ops_addr)
    return {
        **shown,
        TAG_NODE_ID: identity.node_id,
        TAG_EXPECT: str(config.bootstrap_expect),
        TAG_RPC: format_address(config.advertised(rpc_addr)),
        TAG_HTTP: format_address(config.advertised(http_addr)),
        TAG_VERSION: __version__,
        TAG_SUPPORTS: str(supports),
    }


async def _recover(
    config: Config, world: World, limits: LogLimits
) -> tuple[Identity, Wal, Recovered, Store]:
    """Read the data directory; an empty one gets a log, and only then an identity."""
    known = await load_identity(world.disk, config.name)
    wal, recovered = await Wal.open(
        world.disk,
        segment_bytes=limits.segment_bytes,
        must_exist=known is not None,
        memory_bytes=config.log_memory_bytes,
    )
    try:
        pieces = recovered.snapshot.pieces if recovered.snapshot else None
        supports = world.supports
        store = decode_store(pieces, supports) if pieces else Store(supports=supports)
    except MessageInvalid as error:
        raise StorageCorrupt(f"{config.data_dir}: the snapshot does not decode: {error}") from None
    identity = known or await make_identity(world.disk, config.name, world.make_id)
    return identity, wal, recovered, store


def _replica(
    config: Config,
    world: World,
    identity: Identity,
    store: Store,
    wal: Wal,
    recovered: Recovered,
    log_limits: LogLimits,
) -> Replica:
    return Replica(
        _raft(config, world, identity, recovered, log_limits),
        wal,
        world.clients.state_machine(store),
        world.clock,
        backlog=partial(_backlog, world),
        snapshot_every_bytes=log_limits.snapshot_every_bytes,
        snapshot_bytes=recovered.snapshot.size_bytes if recovered.snapshot else 0,
    )


def _is_member(replica: Replica, node_id: NodeId) -> bool:
    return node_id in replica.status().configuration.members


def _hello(identity: Identity, replica: Replica, store: Store, supports: int) -> Hello:
    return identity.hello(replica.cluster_id(), store.level, supports)


def _level_raising(
    config: Config,
    world: World,
    identity: Identity,
    replica: Replica,
    store: Store,
    peers: Peers,
) -> LevelRaising:
    return LevelRaising(
        replica,
        store,
        lambda: replica.status().configuration.members,
        lambda: {identity.node_id: world.supports, **peers.supported()},
        world.clock,
        level_max=level_max_of(config, world),
    )


def level_max_of(config: Config, world: World) -> int:
    """Return the level that this node, when it leads, raises the cluster to at most."""
    return world.supports if config.level_max is None else config.level_max


def _authorization(config: Config, world: World, store: Store) -> Authorization:
    revoked = store.revocations.is_revoked
    return Authorization(
        config, world.clock, world.rng, revoked, partial(disconnect_all, world.clients.hub)
    )


def _backlog(world: World) -> int:
    hub = world.clients.hub
    return report_of(hub.pressure, hub.clients)


def _raft(
    config: Config, world: World, identity: Identity, recovered: Recovered, limits: LogLimits
) -> Raft:
    """Return the core of Raft.

    What is not on disk yet stays in memory, so it is bounded by what memory may hold: by as much,
    or one command.
    """
    _log_memory_max.set(config.log_memory_bytes)
    return Raft(
        RaftConfig(
            identity.node_id,
            heartbeat_interval_s=config.heartbeat_interval_ms / 1000,
            election_timeout_s=config.election_timeout_ms / 1000,
            uncommitted_bytes_max=max(config.log_memory_bytes, ENTRY_DATA_BYTES_MAX),
            keep_entries=limits.keep_entries,
            keep_bytes=limits.keep_bytes,
            log_memory_bytes=config.log_memory_bytes,
        ),
        recovered.hard_state,
        snapshot=recovered.snapshot,
        entries=recovered.tail,
        rng=world.rng,
        now=world.clock.now(),
        state_decoder=partial(StoreDecoder, world.supports),
    )


def _gossip(config: Config, world: World, keys: GossipKeys | None) -> Gossip:
    timing = SwimConfig.local() if config.gossip_profile == "local" else SwimConfig()
    return Gossip(
        name=config.name,
        bind=config.gossip_addr,
        advertise=config.advertised(config.gossip_addr),
        seeds=config.join,
        timing=replace(timing, members_max=config.members_max),
        network=world.gossip,
        clock=world.clock,
        rng=world.rng,
        keys=None if keys is None else keys.ring,
        encryption=Encryption(config.gossip_encryption),
        label=config.gossip_label,
    )


def _bootstrap(
    config: Config, identity: Identity, promised: tuple[NodeId, ...]
) -> Bootstrap | None:
    """Return this node's part in founding a cluster; None when it only joins one."""
    if config.bootstrap_expect == 1 and config.join:
        return None
    return Bootstrap(identity.name, identity.node_id, config.bootstrap_expect, promised)
