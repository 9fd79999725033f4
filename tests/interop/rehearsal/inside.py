"""The first process in the rehearsal's namespaces: `python -m … HELM NGINX DIRECTORY [WHAT]`."""

import sys
import time
from functools import partial
from pathlib import Path

import trio

from noti import telemetry
from noti.cli.signals import INTERRUPTED, until_signalled
from noti.errors import leaves_of
from tests.interop.rehearsal.scenario import rehearse

STOP_S = 60.0


def main() -> int:
    helm, nginx, directory = map(Path, sys.argv[1:4])
    what = "".join(sys.argv[4:])
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {line}", flush=True)

    telemetry.set_up(level="warning", form="human")
    done = False

    async def run() -> None:
        nonlocal done
        await rehearse(helm, nginx, directory, say, what)
        done = True

    failed = False
    try:
        trio.run(partial(until_signalled, run, STOP_S))
    except* AssertionError as errors:
        failed = True
        for error in leaves_of(errors):
            say(f"FAILED: {error}")
    return 1 if failed else 0 if done else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
