"""The nursery tree of a node: what starts in which order, and so what stops in which order.

Each part lives in its own room and is made in `assembly.py`. Nesting is the order. Read downwards
it is the start, read upwards the stop:

    world        data directory locked, log writer, asyncio loop; log recovered
      replica    consensus
        intake   how fast a leader takes events in
        peers    streams to the other nodes; forwarder: what only the leader can do;
                 publisher: events, from whatever way in
          rpc    gRPC: the others' streams, publishers, health, leader status
            authorization  keys for tokens, kept fresh
            browsers     HTTP; at the end their streams are ended in order
              gossip     finds the others; at the end shows that this node leaves; its keys are
                         kept from before to after that
                discovery    finds peers in gossip, shows this node there; founds the cluster
                  decommission, control        what the operator asks of this node
                  controller, level, limits, bridge   while this node leads: who votes, the
                                               cluster's level, the history size, events from NATS
                  presence     who is subscribed, told to the others; ends before gossip says
                               that this node leaves, when the leader ends its subscriptions
                    settings         taken while the node runs
                    leadership       handed over as soon as the node is to stop

A node of which a part fails falls instead: all parts end in the same moment, so that nobody can
elect it, or stay with it, while it goes down. The bridge, presence and settings are optional: their
failures are survived.
"""

from functools import partial

import structlog
import trio

from noti.assembly import LogLimits, Parts, assemble, tags_of
from noti.config import Config
from noti.optional import keep_going
from noti.publishing.nats.bridge import NO_SOURCE, Bridge
from noti.reloading import ChangingSettings, take_settings
from noti.service import Service, Tree
from noti.status import Report
from noti.world import OpenWorld, World, real_world

log = structlog.get_logger("noti.node")

LEAVE_WITHIN_S = 2.5
"""Gossip needs about one second to spread the word and to answer the last probes."""

_LOG_LIMITS = LogLimits()


async def run(
    config: Config,
    *,
    open_world: OpenWorld = real_world,
    log_limits: LogLimits = _LOG_LIMITS,
    settings: ChangingSettings | None = None,
    task_status: trio.TaskStatus[Report] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a node until cancelled; its `settings` may change.

    Raises a `NotiError` (in exception groups) when a part fails: then the whole node is down, at
    once.
    *Cancellation*: hands over leadership, leaves gossip, ends browsers' streams, closes the log;
    each step has a deadline, and all together stay below `config.shutdown_deadline_s`.
    """
    async with open_world(config) as world, Tree() as tree:
        tree.at_fall(world.clients.abandon)
        parts = await assemble(config, world, log_limits)
        await tree.start("replica", partial(parts.replica.run, parts.peers))
        await tree.start("intake", parts.intake.run)
        await tree.start("peers", parts.peers.run)
        await tree.start("forwarder", partial(parts.forwarder.run, parts.peers))
        await tree.start("publisher", parts.publisher.run)
        serve_rpc = partial(
            world.rpc.serve_rpc,
            config.rpc_addr,
            peers=parts.admission,
            node=parts.report,
            publishing=parts.publisher,
        )
        rpc_addr = await tree.start("rpc", serve_rpc)
        await tree.start("authorization", parts.authorization.run)
        serve_http = partial(
            world.clients.serve,
            parts.report,
            parts.publisher,
            commands=parts.forwarder,
            authorizer=parts.authorization.authorizer,
            presence=None if parts.presence is None else parts.presence.presence,
            revoking=parts.revoking,
        )
        http_addr = await tree.start("browsers", serve_http)

        # The ports are known now; gossip spreads them from its first packet on.
        parts.discovery.show(tags_of(config, parts.identity, world.supports, rpc_addr, http_addr))
        if parts.gossip_keys is not None:
            await tree.start("gossip keys", parts.gossip_keys.run)
        await tree.start("gossip", parts.gossip.run)
        await tree.before_stop("gossip", parts.gossip.leave, LEAVE_WITHIN_S)
        await tree.start("discovery", parts.discovery.run)

        await tree.start("decommission", parts.decommission.run)
        await tree.start("control", partial(world.control.serve, parts.operator_requests.carry_out))

        await tree.start("controller", parts.controller.run)
        await tree.start("level", parts.level_raising.run)
        await tree.start("limits", parts.limits.run)
        await _start_optional(tree, parts, world)
        if settings is not None:
            follow = partial(settings.run, partial(take_settings, parts, world))
            part = partial(keep_going, "settings", follow, world.clock, world.rng)
            await tree.start("settings", part)
        within_s = config.election_timeout_ms / 1000
        await tree.before_stop("leadership", parts.replica.hand_over, within_s)
        log.info("node is up", name=parts.identity.name, node_id=parts.identity.node_id)
        task_status.started(parts.report)
        await trio.sleep_forever()


async def _start_optional(tree: Tree, parts: Parts, world: World) -> None:
    """Start the parts whose failures a node survives."""
    if not parts.bridges:
        log.info(NO_SOURCE)
    for bridge in parts.bridges:
        await tree.start("bridge", _optional(bridge, world))
    if parts.presence is not None:
        for part in (parts.presence.announcing, parts.presence.dead_nodes):
            run_part = partial(keep_going, "presence", part.run, world.clock, world.rng)
            await tree.start("presence", run_part)


def _optional(bridge: Bridge, world: World) -> Service[None]:
    return partial(keep_going, "source", bridge.run, world.clock, world.rng, bridge.failed)
