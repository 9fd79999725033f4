"""The nursery tree of a node: what starts in which order, and so what stops in which order.

Enters: the configuration, and a way to open the world. Leaves: a running node, until cancelled.
Never: anything else; each part lives in its own room.

Nesting is the order. Read downwards it is the start, read upwards the stop:

    world        data directory locked, log writer, asyncio loop
      replica    log recovered; consensus
        intake   how fast a leader takes events in
        peers    streams to the other nodes; forwarder: what only the leader can do;
                 publisher: events, from whatever way in
          rpc    gRPC: the others' streams, publishers, health, leader status
            browsers     HTTP; at the end their streams are ended in order
              gossip     finds the others; at the end says that this node leaves
                discovery    finds peers in gossip, shows this node there; founds the cluster
                  decommission, control      what the operator asks of this node
                  controller, limits, bridge   while this node leads: who votes,
                                             the history size, events from NATS
                    leadership       handed over as soon as the node is to stop

A node of which a part fails falls instead: all parts end in the same moment, so that nobody can
elect it, or stay with it, while it goes down. The bridge is optional: its failure is survived.
"""

from dataclasses import dataclass
from functools import partial

import structlog
import trio
from prometheus_client import Gauge

from noti import telemetry
from noti.address import Address, format_address
from noti.config import Config
from noti.errors import StorageCorrupt
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store, flaw_in_snapshot
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
from noti.membership.tags import TAG_EXPECT, TAG_HTTP, TAG_NODE_ID, TAG_RPC, name_of
from noti.membership.voters import VoterLimits
from noti.optional import keep_going
from noti.publishing.limits import Limits
from noti.publishing.nats.bridge import Bridge
from noti.publishing.publisher import Publisher
from noti.raft.applier import SNAPSHOT_EVERY_BYTES, SNAPSHOT_EVERY_ENTRIES
from noti.raft.core.events import KEEP_ENTRIES, LOG_KEEP_BYTES, RaftConfig
from noti.raft.core.machine import Raft
from noti.raft.core.messages import NodeId
from noti.raft.core.pacing import Pacing, report_of
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX
from noti.raft.forwarder import Forwarder
from noti.raft.intake import Intake
from noti.raft.peers import Peers
from noti.raft.replica import Replica
from noti.raft.storage.wal import SEGMENT_BYTES, Recovered, Wal
from noti.service import Service, Tree
from noti.status import Report
from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from noti.world import OpenWorld, World, real_world

log = structlog.get_logger("noti.node")

_log_memory_max = Gauge(
    "noti_raft_log_memory_bytes_max", "Log entries in memory above which those on disk leave it"
)

LEAVE_WITHIN_S = 2.5
"""Gossip needs about one second to spread the word and to answer the last probes."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How large the log may get. The defaults suit every cluster; tests make it small."""

    snapshot_every_entries: int = SNAPSHOT_EVERY_ENTRIES
    snapshot_every_bytes: int = SNAPSHOT_EVERY_BYTES
    keep_entries: int = KEEP_ENTRIES
    keep_bytes: int = LOG_KEEP_BYTES
    segment_bytes: int = SEGMENT_BYTES


_LOG_LIMITS = LogLimits()


@dataclass(frozen=True)
class _Parts:
    """The parts of one node, made and not yet started."""

    store: Store
    replica: Replica
    intake: Intake
    forwarder: Forwarder
    peers: Peers
    gossip: Gossip
    bridge: Bridge | None
    admission: PeerAdmission
    report: Report


async def run(
    config: Config,
    *,
    open_world: OpenWorld = real_world,
    log_limits: LogLimits = _LOG_LIMITS,
    task_status: trio.TaskStatus[Report] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a node until cancelled.

    Raises a `NotiError` (in exception groups) when a part fails: then the whole node is down, at
    once.
    *Cancellation*: hands over leadership, leaves gossip, ends browsers' streams, closes the log;
    each step has a deadline, and all together stay below `config.shutdown_deadline_s`.
    """
    async with open_world(config) as world, Tree() as tree:
        tree.at_fall(world.clients.abandon)
        identity, wal, recovered = await _recover(config, world, log_limits)
        promised = await load_promise(world.disk)
        parts = _assemble(config, world, identity, wal, recovered, log_limits)
        replica, forwarder, report = parts.replica, parts.forwarder, parts.report

        await tree.start("replica", partial(replica.run, parts.peers))
        await tree.start("intake", parts.intake.run)
        await tree.start("peers", parts.peers.run)
        await tree.start("forwarder", partial(forwarder.run, parts.peers))
        publisher = Publisher(forwarder, world.clock, world.rng)
        await tree.start("publisher", publisher.run)
        rpc, admission = world.rpc, parts.admission
        serve_rpc = partial(rpc.serve_rpc, config.rpc_addr, admission, report, publisher)
        rpc_addr = await tree.start("rpc", serve_rpc)
        serve_browsers = partial(world.clients.serve, report)
        http_addr = await tree.start("browsers", serve_browsers)

        bootstrap = _bootstrap(config, identity, promised)
        discovery = _discovery(config, world, identity, parts, bootstrap, rpc_addr, http_addr)
        await tree.start("gossip", parts.gossip.run)
        await tree.part_with("gossip", parts.gossip.leave, LEAVE_WITHIN_S)
        await tree.start("discovery", discovery.run)

        decommission = Decommission(
            identity.node_id,
            parts.gossip,
            replica,
            forwarder,
            discovery.show_leaving,
            world.clock,
        )
        await tree.start("decommission", decommission.run)
        serve_control = partial(world.control.serve, decommission.leave)
        await tree.start("control", serve_control)

        controller = MembershipController(
            parts.gossip,
            replica,
            forwarder.leaving,
            parts.peers.connected,
            world.clock,
            VoterLimits(config.voters_max, hold_down_s=config.voter_hold_down_s),
        )
        await tree.start("controller", controller.run)
        limits = Limits(replica, lambda: parts.store.history_size, config.history_size)
        await tree.start("limits", limits.run)
        if parts.bridge is not None:
            await tree.start("bridge", _whatever_it_raises(parts.bridge, world))
        await tree.part_with("leadership", replica.hand_over, config.election_timeout_ms / 1000)
        log.info("node is up", name=identity.name, node_id=identity.node_id)
        task_status.started(report)
        await trio.sleep_forever()


def _whatever_it_raises(bridge: Bridge, world: World) -> Service[None]:
    """Return the bridge as an optional part."""
    return partial(keep_going, "source", bridge.run, world.clock, world.rng, bridge.failed)


async def _recover(
    config: Config, world: World, limits: LogLimits
) -> tuple[Identity, Wal, Recovered]:
    """Read the data directory; an empty one gets a log, and only then an identity."""
    known = await load_identity(world.disk, config.name)
    wal, recovered = await Wal.open(
        world.disk,
        segment_bytes=limits.segment_bytes,
        must_exist=known is not None,
        memory_bytes=config.log_memory_bytes,
    )
    flaw = flaw_in_snapshot(recovered.snapshot.data) if recovered.snapshot else None
    if flaw is not None:
        raise StorageCorrupt(f"{config.data_dir}: the snapshot does not decode: {flaw}")
    identity = known or await make_identity(world.disk, config.name, world.make_id)
    return identity, wal, recovered


def _assemble(
    config: Config,
    world: World,
    identity: Identity,
    wal: Wal,
    recovered: Recovered,
    limits: LogLimits,
) -> _Parts:
    """Make all parts from what the disk holds."""
    store = Store()
    state_machine = HistoryStateMachine(store, world.clients)
    if recovered.snapshot is not None:
        state_machine.restore(recovered.snapshot.data)
    core = _core(config, world, identity, recovered, limits)

    def backlog() -> int:
        return report_of(world.clients.pressure, world.clients.count)

    replica = Replica(
        core,
        wal,
        state_machine,
        world.clock,
        backlog=backlog,
        snapshot_every_entries=limits.snapshot_every_entries,
        snapshot_every_bytes=limits.snapshot_every_bytes,
    )
    intake = Intake(
        identity.node_id,
        replica,
        Pacing(config.pacing_s, heard_within_s=config.election_timeout_ms / 1000),
        world.clock,
        backlog,
        lambda node_id: name_of(gossip.members(), node_id),
    )
    forwarder = Forwarder(identity.node_id, replica, intake)
    peers = Peers(
        world.rpc,
        lambda: identity.hello(replica.cluster_id()),
        forwarder,
        world.clock,
        world.rng,
        lambda node_id: name_of(gossip.members(), node_id),
    )
    gossip = Gossip(
        name=identity.name,
        bind=config.gossip_addr,
        advertise=config.advertised(config.gossip_addr),
        seeds=config.join,
        timing=SwimConfig.local() if config.gossip_profile == "local" else SwimConfig(),
        network=world.gossip,
        clock=world.clock,
        rng=world.rng,
    )
    bridge = None
    if world.source is not None:
        bridge = Bridge(world.source, intake, store.floor, world.clock, world.rng)
    admission = PeerAdmission(identity, replica, gossip, peers.serve)
    report = Report(
        identity,
        replica,
        forwarder,
        store,
        telemetry.build(),
        members=gossip.members,
        clients=lambda: world.clients.count,
        source=bridge.status if bridge is not None else lambda: {"state": "none"},
        intake=intake,
    )
    return _Parts(store, replica, intake, forwarder, peers, gossip, bridge, admission, report)


def _core(
    config: Config, world: World, identity: Identity, recovered: Recovered, limits: LogLimits
) -> Raft:
    """Make the part that decides; what is not on disk yet stays in memory, so it is bounded by what
    memory may hold: by as much, or one command."""
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
        recovered.snapshot,
        recovered.tail,
        world.rng,
        world.clock.now(),
        flaw_in_snapshot,
    )


def _bootstrap(
    config: Config, identity: Identity, promised: tuple[NodeId, ...]
) -> Bootstrap | None:
    """Return this node's part in founding a cluster; None when it only joins one."""
    if config.bootstrap_expect == 1 and config.join:
        return None
    return Bootstrap(identity.name, identity.node_id, config.bootstrap_expect, promised)


def _discovery(
    config: Config,
    world: World,
    identity: Identity,
    parts: _Parts,
    bootstrap: Bootstrap | None,
    rpc_addr: Address,
    http_addr: Address,
) -> Discovery:
    """Join gossip and Raft; the tags carry the real ports, so they come when those are known."""
    tags = {
        TAG_NODE_ID: identity.node_id,
        TAG_EXPECT: str(config.bootstrap_expect),
        TAG_RPC: format_address(config.advertised(rpc_addr)),
        TAG_HTTP: format_address(config.advertised(http_addr)),
    }
    parts.gossip.set_tags(tags)
    return Discovery(
        parts.gossip,
        parts.replica,
        parts.peers.update,
        node_id=identity.node_id,
        tags=tags,
        bootstrap=bootstrap,
        save_promise=partial(save_promise, world.disk),
        clock=world.clock,
    )
