"""A node that notes when an event passes each of its hops, for `just bench latency timeline=on`.

`python -m tests.bench.traced_node run …` is `noti run …`; the times go to `NAME.trace` in the
folder that `BENCH_TRACES` names, one `nanoseconds hop` a line, of the monotonic clock that all
processes of a machine share. It patches noti from outside: nodes in use carry nothing of this.
"""

import functools
import inspect
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from noti.cli import main as noti_main

FOLDER: Final = "BENCH_TRACES"

HOPS: Final = (
    ("message from NATS", "noti.publishing.nats.pull", "Pull", "_on_message"),
    ("given to the bridge", "noti.publishing.nats.bridge", "", "encode"),
    ("proposed", "noti.raft.replica", "Replica", "submit"),
    ("frame from a peer", "noti.raft.peers", "Peers", "_take_in"),
    ("sent to peers", "noti.rpc.raft_streams", "PeerMessageStream", "send_at_once"),
    ("write begins", "noti.raft.storage.wal", "Wal", "append"),
    ("on disk", "noti.raft.replica", "Replica", "_disk_reported"),
    ("applied", "noti.history.state_machine", "HistoryStateMachine", "apply"),
    ("hub is rung", "noti.streams.hub", "Hub", "publish"),
    ("browsers are written to", "noti.streams.sockets", "StreamSockets", "send_to_group"),
)
"""Name, module, class (none: a function of the module) and function. What a node does not have, as
its code has changed, is left out of the timeline."""


def main() -> None:
    """Patch, and run."""
    name = next(one.partition("=")[2] for one in sys.argv if one.startswith("--name="))
    path = os.path.join(os.environ[FOLDER], f"{name}.trace")  # noqa: PTH118 - before all imports
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    for hop, module, owner, function in HOPS:
        holder: Any = import_module(module)
        if owner:
            holder = getattr(holder, owner, None)
        original = getattr(holder, function, None)
        if original is not None:
            setattr(holder, function, _noting(descriptor, hop, original))
    noti_main()


def _noting(descriptor: int, hop: str, original: Callable[..., Any]) -> Callable[..., Any]:
    end = f" {hop}\n".encode()

    if inspect.iscoroutinefunction(original):  # nats-py insists on such a callback

        @functools.wraps(original)
        async def noting_later(*args: Any, **options: Any) -> Any:
            os.write(descriptor, b"%d%s" % (time.monotonic_ns(), end))
            return await original(*args, **options)

        return noting_later

    @functools.wraps(original)
    def noting(*args: Any, **options: Any) -> Any:
        os.write(descriptor, b"%d%s" % (time.monotonic_ns(), end))
        return original(*args, **options)

    return noting


if __name__ == "__main__":
    main()
