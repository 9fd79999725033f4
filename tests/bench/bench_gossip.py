"""Gossip, against Debian's Serf agent in the same run: detection, packets, idleness.

- crashes: two clusters of `members` with the `local` profile, side by side. Again and again the
  same member of both is killed at once; how long until all others show it as failed?
- packets: pings answered for each second of the server's processor, sent as fast as they are
  answered; and how many packets of each kind a core decodes and handles in a second of processor.
- idle: processor time, wake-ups and memory of a member of three (`profile`) that has nothing to do.
- many: the same for members of a cluster of `simulated`, all in one process and in virtual time:
  the work of their loops, without the system calls.
"""

import argparse
import logging
import random
import secrets
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import structlog
import trio
import trio.testing

from noti.swim.core.events import PacketReceived
from noti.swim.core.keyring import KeyRing
from noti.swim.core.machine import Swim
from noti.swim.core.messages import VERSIONS, Ack, Alive, Message, Ping, Suspect
from noti.swim.core.packets import decode_packet, encode, encode_packet, encode_tags
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from tests.bench.bench_idle import usage_of
from tests.bench.clusters import HOST, Processes
from tests.bench.gossip_clusters import GossipCluster, Noti, Serf, wait_for
from tests.bench.gossip_member import PROFILES
from tests.bench.report import Arguments, Report, quantile, tell
from tests.simulation.memory_gossip import MemoryNet, VirtualClock

SERF = "serf agent"
WINDOW = 32
"""Pings under way: fewer than any socket's buffer holds."""
SEALED = (Encryption.REQUIRED, "", secrets.token_bytes)
SETTLE_S = 3.0
CORE_MEMBERS = 100
PORT = 7946
JOIN_S = 300.0
"""In this time, which costs none, 100 members have met, and what that set off is over."""
VIRTUAL_S = 60.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--parts", default="crashes,packets,idle,many")
    arguments.add_argument("--crashes", type=int, default=20)
    arguments.add_argument("--members", type=int, default=5, help="of each cluster with crashes")
    arguments.add_argument("--seconds", type=float, default=10, help="of pings, and of idleness")
    arguments.add_argument("--profile", default="lan", choices=PROFILES, help="while idle")
    arguments.add_argument("--simulated", type=int, default=100, help="members in virtual time")
    arguments.add_argument("--directory", type=Path, help="where the logs go (default: /tmp)")
    options = arguments.options(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    report = Report("gossip", options.json)
    parts = {"crashes": _crashes, "packets": _packets, "idle": _idle, "many": _many}
    for name in options.parts.split(","):
        parts[name](options, report)
    report.finish()


# --- crashes --------------------------------------------------------------------------------------


def _crashes(options: argparse.Namespace, report: Report) -> None:
    took_s: dict[str, list[float]] = {"noti": [], "serf": []}
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        both = [
            GossipCluster(program, options.members, them, Path(name))
            for program in (Noti("local"), Serf("local"))
        ]
        for crash in range(options.crashes):
            number = crash % options.members
            watches = [cluster.kill(number) for cluster in both]
            assert wait_for(*watches), [watch.seen_after_s for watch in watches]
            for cluster, watch in zip(both, watches, strict=True):
                took_s[cluster.program.name].append(max(watch.seen_after_s.values()))
            shown = ", ".join(f"{who} {each[-1]:.2f} s" for who, each in took_s.items())
            tell(f"  crash {crash + 1}: {shown}")
            assert wait_for(*(cluster.restart(number) for cluster in both)), "it does not return"
    for share, label in ((0.5, "median"), (0.9, "p90"), (1.0, "longest")):
        ours, theirs = (quantile(each, share) for each in took_s.values())
        name = f"{options.crashes} crashes, until all of {options.members} know: {label}"
        report.add(name, ours, "s", SERF, theirs)


# --- packets --------------------------------------------------------------------------------------


def _packets(options: argparse.Namespace, report: Report) -> None:
    rates = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        for program in (Noti("local"), Serf("local")):
            cluster = GossipCluster(program, 1, them, Path(name))
            tell(f"  pings to {program.name}")
            rates[program.name] = _answered(cluster, options.seconds)
            cluster.kill(0)
    for position, (label, unit) in enumerate((("", "1/s"), (", per CPU s of the server", "1/s"))):
        ours, theirs = (rate[position] for rate in rates.values())
        report.add(f"pings answered{label}", ours, unit, SERF, theirs)
    for kind, messages in _kinds().items():
        for name, sealing in (("", None), (", encrypted", Sealing(KeyRing([b"k" * 32]), *SEALED))):
            rate = _handled_per_s(messages, sealing)
            report.add(f"{kind}{name}: decoded and handled", rate, "1/CPU s")


def _answered(cluster: GossipCluster, seconds: float) -> tuple[float, float]:
    """Return answers per second, and per second of the server's processor."""
    member, answered, sequence = cluster.members[0], 0, 0
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as pinging:
        pinging.connect((HOST, member.port))
        pinging.settimeout(1.0)
        before = usage_of(cluster.pids)
        for _ in range(WINDOW):
            sequence += 1
            pinging.send(encode_packet([encode(Ping(sequence, member.name, None, ""))]))
        while time.monotonic() - before.at < seconds:
            pinging.recv(65_536)
            answered += 1
            sequence += 1
            pinging.send(encode_packet([encode(Ping(sequence, member.name, None, ""))]))
        after = usage_of(cluster.pids)
    processor_s = after.processor_s - before.processor_s
    return answered / (after.at - before.at), answered / processor_s


def _kinds() -> dict[str, list[Message]]:
    alive = [_alive(number) for number in range(1, 4)]
    return {
        "ping": [Ping(1, "node0", _address(1), "node1")],
        "ack": [Ack(1, None)],
        "gossip about 3, known": [*alive],
        "suspicion of ourselves": [Suspect(1, "node0", "node1")],
    }


def _handled_per_s(messages: Sequence[Message], sealing: Sealing | None) -> float:
    core = Swim(
        name="node0",
        address=_address(0),
        tags={},
        incarnation=1_800_000_000,
        seeds=(),
        config=SwimConfig(),
        rng=random.Random(1),
        now=0.0,
    )
    for number in range(1, CORE_MEMBERS):
        core.handle(PacketReceived((_alive(number),), _address(number)), 0.0)
    packet = encode_packet([encode(message) for message in messages])
    payload = packet if sealing is None else sealing.seal_packet(packet)
    count, begun_at = 0, time.process_time()
    while time.process_time() - begun_at < 1.0:
        for _ in range(100):
            count += 1
            opened = payload if sealing is None else sealing.open_packet(payload)
            core.handle(PacketReceived(decode_packet(opened).messages, _address(1)), count * 1e-4)
    return count / (time.process_time() - begun_at)


def _alive(number: int) -> Alive:
    tags = encode_tags({"id": f"0192-{number}", "role": "noti", "rpc": "10.0.0.1:8400"})
    return Alive(1_800_000_000, f"node{number}", _address(number), tags, VERSIONS)


def _address(number: int) -> tuple[str, int]:
    return f"10.0.{number // 250}.{number % 250 + 1}", PORT


# --- idleness -------------------------------------------------------------------------------------


def _idle(options: argparse.Namespace, report: Report) -> None:
    used = []
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        for program in (Noti(options.profile), Serf(options.profile)):
            cluster = GossipCluster(program, 3, them, Path(name))
            time.sleep(SETTLE_S)
            tell(f"  {program.name} idle for {options.seconds:g} s")
            before = usage_of(cluster.pids)
            time.sleep(options.seconds)
            after = usage_of(cluster.pids)
            elapsed_s = (after.at - before.at) * len(cluster.pids)
            used.append(
                (
                    100 * (after.processor_s - before.processor_s) / elapsed_s,
                    (after.switches - before.switches) / elapsed_s,
                    after.pss_kb / 1024 / len(cluster.pids),
                )
            )
            for number in range(3):
                cluster.kill(number)
    labels = (("processor", "% of a core"), ("turns", "1/s"), ("memory, PSS", "MB"))
    for (label, unit), ours, theirs in zip(labels, *used, strict=True):
        report.add(f"idle member of 3 ({options.profile}): {label}", ours, unit, SERF, theirs)


def _many(options: argparse.Namespace, report: Report) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    for members in (3, options.simulated):
        share = trio.run(_simulated_share, members, options, clock=clock)
        name = f"idle member of {members} in virtual time ({options.profile}): processor"
        report.add(name, 100 * share, "% of a core")


async def _simulated_share(members: int, options: argparse.Namespace) -> float:
    """Return the processor time of one member for each second of virtual time."""
    net = MemoryNet(random.Random(1))
    nodes = []
    async with trio.open_nursery() as nursery:
        for number in range(members):
            host, port = _address(number)
            gossip = Gossip(
                name=f"node{number}",
                bind=(host, port),
                advertise=None,
                seeds=[_address(0)] if number else [],
                timing=PROFILES[options.profile],
                network=net.host(host),
                clock=VirtualClock(),
                rng=random.Random(number),
            )
            gossip.set_tags({"id": f"0192-{number}", "role": "noti", "rpc": "10.0.0.1:8400"})
            await nursery.start(gossip.run)
            nodes.append(gossip)
        tell(f"  {members} simulated members")
        await trio.sleep(JOIN_S)
        assert all(len(node.members()) == members for node in nodes), "they have not met"
        begun_at, used_s = trio.current_time(), time.process_time()
        await trio.sleep(VIRTUAL_S)
        share = (time.process_time() - used_s) / (trio.current_time() - begun_at) / members
        nursery.cancel_scope.cancel()
    return share


if __name__ == "__main__":
    main()
