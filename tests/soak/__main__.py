"""`just soak minutes=10`: a real cluster under random trouble, and whether it kept its promises.

Enters: `minutes=2 seed=N nodes=3 clients=300 history=0`. Leaves: a table; exit status 1 when a
promise was broken, with the command that runs the same schedule again; logs and a timeline.
Never: a process that is left, a packet outside of the namespaces or of loopback.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

from tests.interop.rehearsal.namespaces import obstacle, run_inside
from tests.soak.soak import Plan

DIRECTORY = Path(".data/soak")
NODES = (3, 4, 5)


def plan_of(arguments: list[str]) -> Plan:
    """Return what is asked for; exits with one line when that is nothing."""
    given: dict[str, float] = {
        "minutes": 2,
        "seed": int.from_bytes(os.urandom(3)),
        "nodes": 3,
        "clients": 300,
        "history": 0,
        "namespaces": 1,
    }
    for argument in arguments:
        key, _, value = argument.partition("=")
        number = value.replace(".", "", 1) if key == "minutes" else value
        if key not in given or not number.isdigit():
            sys.exit(f"just soak: {argument!r} is none of minutes, seed, nodes, clients, history=N")
        given[key] = float(value)
    nodes, clients = int(given["nodes"]), int(given["clients"])
    if nodes not in NODES or clients < 1:
        sys.exit("just soak: nodes=3, 4 or 5, and clients=1 or more")
    seed, history = int(given["seed"]), int(given["history"])
    namespaces = given["namespaces"] > 0
    return Plan(given["minutes"], seed, nodes, clients, history, namespaces=namespaces)


def main(arguments: list[str]) -> int:
    """Soak; return the exit status."""
    plan = plan_of(arguments)
    reason = obstacle() if plan.namespaces else "namespaces=0"
    if reason is not None:
        print(f"without partitions and full disks: {reason}", file=sys.stderr)
        plan = dataclasses.replace(plan, namespaces=False)
    directory = fresh_directory(plan.seed)
    command = [sys.executable, "-m", "tests.soak.inside", json.dumps(dataclasses.asdict(plan))]
    command.append(str(directory))
    if not plan.namespaces:
        os.execv(command[0], command)  # so that signals reach it
    return run_inside(command)


def fresh_directory(seed: int) -> Path:
    """Return a new directory for this run."""
    for number in range(1, 10_000):
        directory = (DIRECTORY / f"{seed}-{number}").absolute()
        if not directory.exists():
            directory.mkdir(parents=True)
            return directory
    raise AssertionError("too many runs of one seed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
