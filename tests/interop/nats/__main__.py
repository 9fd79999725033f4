"""`just interop-nats minutes=2`: leaders and NATS servers die, and no event is lost.

Enters: `minutes=2 retention=workqueue servers=1 restarts=5`, without `retention` each of the three
in turn. Leaves: what was done, one line a run; exit status 1 when a promise was broken, with logs.
"""

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import get_args

import trio

from tests.interop.nats.trouble import Plan, Retention, run


def plans_of(arguments: list[str]) -> list[Plan]:
    """Return what is asked for; exits with one line when that is nothing."""
    given = {"minutes": "2", "retention": "", "servers": "1", "restarts": "5"}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in given:
            sys.exit(f"just interop-nats: {argument!r} is none of {', '.join(given)}")
        given[key] = value
    retentions: list[Retention] = [
        one for one in get_args(Retention) if given["retention"] in ("", one)
    ]
    try:
        seconds, restarts = 60 * float(given["minutes"]), int(given["restarts"])
    except ValueError as error:
        sys.exit(f"just interop-nats: {error}")
    if not retentions or given["servers"] not in ("1", "3"):
        sys.exit("just interop-nats: retention=workqueue, interest or limits; servers=1 or 3")
    return [Plan(one, int(given["servers"]), seconds, restarts) for one in retentions]


def main(arguments: list[str]) -> int:
    """Run the plans; return the exit status."""
    for plan in plans_of(arguments):
        directory = Path(tempfile.mkdtemp(prefix="noti-nats-"))
        print(f"{plan}, in {directory}", flush=True)
        print(trio.run(partial(run, directory, plan)), flush=True)
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
