"""A front end and its hub, and a publisher in the same process that is as fast as they are.

`python -m tests.bench.topic_server [CERTIFICATE KEY]` writes its port, and then for each line
`TOPICS READERS SECONDS` on its input publishes events on one of so many topics each, chosen at
random, and writes a JSON line: what it published, what was delivered, and the processor time of
this process. Without a log and a network of publishers, what the hub does for an event is nearly
all of it.
"""

import json
import random
import sys
import time
from collections import deque
from pathlib import Path

import structlog
import trio

from noti.certificates import uses
from noti.history.notification import Notification
from noti.http.config import HttpConfig
from noti.streams.hub import Hub
from noti.streams.metrics import DELIVERIES
from tests.http.stage import hub, serving

HISTORY = 10_000
AHEAD = 64
"""Events under way, as many as one batch of a busy publisher."""
DATA = "x" * 150


def delivered() -> float:
    return float(
        DELIVERIES._value.get()
    )  # collecting all metrics would be most of what is measured


class Publisher:
    """Publishes single events, and waits for their deliveries now and then."""

    def __init__(self, there: Hub) -> None:
        self._hub = there
        self._rng = random.Random(1)
        self._seq = 0
        self._history: deque[int] = deque()

    def publish(self, topics: int) -> None:
        self._seq += 1
        seq = self._seq
        topic = f"/users/{self._rng.randrange(topics)}"
        one = Notification(seq, f"urn:uuid:{seq:032x}", (topic,), DATA, int(time.time() * 1000))
        self._hub.publish([one])
        self._history.append(seq)
        if len(self._history) > HISTORY:
            self._hub.trim(seq - HISTORY + 1, [self._history.popleft()])

    async def run(self, topics: int, readers: int, seconds: float) -> dict[str, float]:
        """Publish for some seconds; each event is for so many readers."""
        began, cpu, before, first = time.monotonic(), time.process_time(), delivered(), self._seq
        while time.monotonic() < began + seconds:
            for _ in range(AHEAD):
                self.publish(topics)
                await trio.lowlevel.checkpoint()
            while delivered() - before < (self._seq - first) * readers:  # noqa: ASYNC110
                await trio.sleep(0.0005)
        return {
            "seconds": time.monotonic() - began,
            "cpu_s": time.process_time() - cpu,
            "published": self._seq - first,
            "delivered": delivered() - before,
        }


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    there = hub(clients_max=20_000, heartbeat_s=600.0)
    tls = uses.for_browsers(*map(Path, sys.argv[1:3])) if sys.argv[1:] else None
    async with serving(there, config=HttpConfig(), tls=tls) as address:
        print(address[1], flush=True)
        publisher = Publisher(there)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            topics, readers, seconds = line.split()
            result = await publisher.run(int(topics), int(readers), float(seconds))
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    trio.run(main)
