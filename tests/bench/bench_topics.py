"""What topics cost: many audiences beside few, and URI templates beside `*`.

A front end with its hub has one processor, the clients have another. Events have 150 bytes, one
topic, and are published one by one by the server itself: what is measured is what the hub does.

- own topics: as many clients as topics, and each event is for one of them, chosen at random. An
  event for one of 10,000 should cost about what one for one of 10 does.
- templates: 1,000 clients in 100 groups, each with templates of its own that match every event,
  against as many that ask for `*`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.bench.report import Arguments, Report, tell

SERVER_CPU, LOAD_CPU = 0, 1
FEW = 10
TEMPLATE_CLIENTS, TEMPLATE_SETS = 1000, 100


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--clients", type=int, default=10_000, help="with a topic each")
    arguments.add_argument("--seconds", type=float, default=5, help="for each measurement")
    arguments.add_argument("--rounds", type=int, default=3, help="of each; the best one counts")
    options = arguments.options(argv)
    report = Report("what topics cost a hub, one processor for the server", options.json)
    many, few = (
        best(measure([f"topic=/users/{number}" for number in range(clients)], 1, options))
        for clients in (options.clients, FEW)
    )
    own, base = f"{options.clients} clients with a topic each", f"{FEW} clients"
    report.add(f"{own}, events/s", many["events_per_s"], "events/s", base, few["events_per_s"])
    report.add(f"{own}, CPU of an event", many["cpu_us"], "us", base, few["cpu_us"])
    sets = [
        f"topic=/users/{{id}}&topic=/{{kind}}/{{id}}&topic=/own-{number % TEMPLATE_SETS}/{{id}}"
        for number in range(TEMPLATE_CLIENTS)
    ]
    templates, star = (
        best(measure(queries, TEMPLATE_CLIENTS, options))
        for queries in (sets, ["topic=*"] * TEMPLATE_CLIENTS)
    )
    report.add(
        f"{TEMPLATE_CLIENTS} clients, {TEMPLATE_SETS} sets of three URI templates",
        templates["deliveries_per_s"],
        "deliveries/s",
        "topic=*",
        star["deliveries_per_s"],
    )
    report.finish()


def measure(queries: list[str], readers: int, options: object) -> list[dict[str, float]]:
    """Publish to these streams; each event is for so many of them. Return all rounds."""
    seconds, rounds = vars(options)["seconds"], vars(options)["rounds"]
    topics = len(queries) if readers == 1 else 1000
    with server() as there:
        assert there.stdin is not None
        assert there.stdout is not None
        port = int(there.stdout.readline())
        with clients(port, queries):
            found = []
            for _ in range(rounds):
                there.stdin.write(f"{topics} {readers} {seconds}\n")
                there.stdin.flush()
                told = json.loads(there.stdout.readline())
                assert told["delivered"] == told["published"] * readers, "each event, once"
                found.append(
                    {
                        "events_per_s": told["published"] / told["seconds"],
                        "deliveries_per_s": told["delivered"] / told["seconds"],
                        "cpu_us": 1e6 * told["cpu_s"] / told["published"],
                    }
                )
                tell(f"{len(queries)} clients, {queries[0]}: {found[-1]}")
    return found


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the round that other work of the machine disturbed the least."""
    return min(rounds, key=lambda figures: figures["cpu_us"])


@contextmanager
def server() -> Iterator[subprocess.Popen[str]]:
    """Run the server on its processor."""
    yield from running([sys.executable, "-m", "tests.bench.topic_server"], SERVER_CPU)


@contextmanager
def clients(port: int, queries: list[str]) -> Iterator[None]:
    """Hold these streams open, and read what comes."""
    command = [sys.executable, "-m", "tests.bench.topic_clients", str(port)]
    for process in running(command, LOAD_CPU):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(queries) + "\n")
        process.stdin.close()
        assert process.stdout.readline() == "open\n"
        yield


def running(command: list[str], cpu: int) -> Iterator[subprocess.Popen[str]]:
    """Run a command on a processor, and kill it in the end."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        os.sched_setaffinity(process.pid, {cpu})
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
