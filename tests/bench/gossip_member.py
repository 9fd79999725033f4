"""One member of a gossip cluster of ours, in a process of its own, for `bench_gossip`.

    python -m tests.bench.gossip_member NAME PORT PROFILE [SEED_PORT …]

Prints `STATE NAME` for each change that it sees, as Serf agents log theirs.
"""

import logging
import random
import sys
from collections.abc import Mapping

import structlog
import trio

from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from noti.swim.sockets import SocketNetwork
from noti.trio_clock import TrioClock

HOST = "127.0.0.1"
PROFILES = {"lan": SwimConfig(), "local": SwimConfig.local()}


async def run(name: str, port: int, profile: str, seeds: list[int]) -> None:
    """Gossip until killed."""
    gossip = Gossip(
        name=name,
        bind=(HOST, port),
        advertise=None,
        seeds=[(HOST, seed) for seed in seeds],
        timing=PROFILES[profile],
        network=SocketNetwork(),
        clock=TrioClock(),
        rng=random.Random(),
    )
    gossip.set_tags({"id": f"id-{name}", "role": "noti"})
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        shown: Mapping[str, str] = {}
        while True:
            seen = {each.name: each.state.name.lower() for each in gossip.members()}
            for other, state in seen.items():
                if shown.get(other) != state:
                    print(state, other, flush=True)
            shown = seen
            await gossip.wait_changed()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    trio.run(run, sys.argv[1], int(sys.argv[2]), sys.argv[3], [int(one) for one in sys.argv[4:]])
