"""The process that soaks, in namespaces of its own if possible: `python -m … PLAN DIRECTORY`."""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio
from rich.console import Console

from noti import telemetry
from noti.cli.signals import INTERRUPTED, until_signalled
from noti.errors import leaves_of
from tests.soak.checks import Observed, checks, table
from tests.soak.soak import Plan, Soak

STOP_S = 30.0


def main() -> int:
    """Soak as told; return 0 when all promises were kept."""
    plan, directory = Plan(**json.loads(sys.argv[1])), Path(sys.argv[2])
    begun, observed = time.monotonic(), None
    timeline = (directory / "timeline.txt").open("w")

    def say(line: str) -> None:
        told = f"{time.monotonic() - begun:7.1f} s  {line}"
        print(told, flush=True)
        timeline.write(told + "\n")
        timeline.flush()

    telemetry.set_up(level="error", form="human")

    async def run() -> None:
        nonlocal observed
        observed = await Soak(plan, directory, say).run()

    failed = False
    try:
        trio.run(partial(until_signalled, run, STOP_S))
    except* AssertionError as errors:
        failed = True
        for error in leaves_of(errors):
            say(f"FAILED: {error}")
    if failed or observed is None:
        return 1 if failed else INTERRUPTED
    return judge(plan, directory, observed, say)


def judge(plan: Plan, directory: Path, observed: Observed, say: Callable[[str], None]) -> int:
    """Say what was kept and what was broken."""
    for one in observed.exits:
        if not one.expected:
            say(f"unexpected: {one.node} {one.status}: {one.last_line[:1000]}")
    for what in observed.broken:
        say(f"broken: {what}")
    lines = checks(observed)
    with (directory / "table.txt").open("w") as file:
        for console in (Console(), Console(file=file, width=100)):
            console.print(table(lines, f"soak {plan}"))
    broken = [line.name for line in lines if line.broken]
    print(f"timeline and logs: {directory}")
    if broken:
        print(f"BROKEN: {', '.join(broken)}\nagain: just soak {plan}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
