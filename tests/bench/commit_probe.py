"""How long a node takes to commit one event, again and again, for a while.

`python -m tests.bench.commit_probe PORT SECONDS` prints a JSON list of milliseconds. The events
have a topic of their own, so that nobody is shown them.
"""

import json
import random
import sys
import time

from tests.bench.clusters import HOST
from tests.bench.load.mark import Mark
from tests.bench.load.publishers import GrpcPublisher

RATE = 100
TOPIC = "probe"


def main() -> None:
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    publisher = GrpcPublisher(HOST, port, TOPIC)
    durations_ms: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.monotonic()
        publisher.publish([Mark("0", 1, 0)])
        publisher.settle()
        durations_ms.append((time.monotonic() - started) * 1000)
        # At random moments, so that no probe follows the beat of what else goes on.
        time.sleep(random.expovariate(RATE))
    publisher.close()
    print(json.dumps(durations_ms))


if __name__ == "__main__":
    main()
