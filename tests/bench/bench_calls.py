"""How many Python calls, in how many modules, one event takes through a node.

A node alone, with its real gRPC, log on disk and HTTP, publishes one event at a time to one stream
that is in step. Counted is every call of a Python function whose code is in `noti/`, from the
decoding of the publish request to the hub's `send` on the client's socket, as `sys.setprofile`
reports it: functions, methods and lambdas. A comprehension is part of its function (from Python
3.12 on it is no call either), and so is each further step of a coroutine. What other tasks do
meanwhile (timers, metrics) is noise, so the shortest way of all events is the figure.
Nothing is shared by a batch here, so this is what a lonely event costs; in a batch most calls are
made once for all of it.
"""

import asyncio
import dis
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType

import trio

import noti
from noti import node, telemetry
from noti.config import Config
from noti.publishing.ports import Draft
from noti.rpc.publish_client import open_publish_stream
from tests.bench.report import Arguments, Report, tell

PACKAGE = f"{Path(noti.__file__).parent}{os.sep}"
FIRST = ("rpc/publish_service.py", "decode_drafts")
LAST_ROOM, LAST = "streams/", "send"
INSIDE = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")
RESUME = dis.opmap["RESUME"]
PAUSE_S = 0.05
"""Between events, so that none meets the end of the one before it."""


class Counting:
    """The calls of each event."""

    def __init__(self) -> None:
        self.ways: list[list[tuple[str, str]]] = []
        """Of each event: module and function of each call, in order."""
        self._way: list[tuple[str, str]] | None = None
        self._names: dict[CodeType, tuple[str, str] | None] = {}

    def start(self) -> None:
        """Count what this thread calls from now on."""
        sys.setprofile(self._on_call)

    def stop(self) -> None:
        """Count no longer."""
        sys.setprofile(None)

    def _on_call(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            name = self._name_of(frame.f_code)
            if name is None or frame.f_code.co_name.startswith(INSIDE) or is_resumed(frame):
                return
            if name == FIRST:
                self._way = []
            if self._way is not None:
                self._way.append(name)
        elif event == "c_call" and self._way is not None:
            name = self._name_of(frame.f_code)
            called = getattr(argument, "__name__", "")
            if name is not None and name[0].startswith(LAST_ROOM) and called == LAST:
                self.ways.append(self._way)
                self._way = None

    def _name_of(self, code: CodeType) -> tuple[str, str] | None:
        if code not in self._names:
            path = code.co_filename
            inside = path.startswith(PACKAGE)
            self._names[code] = (path[len(PACKAGE) :], code.co_qualname) if inside else None
        return self._names[code]


def is_resumed(frame: FrameType) -> bool:
    """Whether a coroutine goes on, rather than begins."""
    code = frame.f_code.co_code
    return frame.f_lasti >= 0 and code[frame.f_lasti] == RESUME and code[frame.f_lasti + 1] & 3 > 0


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--events", type=int, default=100, help="to publish, one at a time")
    options = arguments.options(argv)
    telemetry.set_up(level="error", form="human")
    counting = Counting()
    with tempfile.TemporaryDirectory() as directory:
        trio.run(_measure, Path(directory), options.events, counting)
    way = min(counting.ways, key=len)
    modules = list(dict.fromkeys(module for module, _ in way))
    for number, (module, function) in enumerate(way, start=1):
        print(f"{number:4} {module:32} {function}")
    tell(f"in order: {', '.join(modules)}")
    report = Report("the way of one event: gRPC in, log, hub out", options.json)
    report.add("calls", len(way), "calls")
    report.add("modules", len(modules), "modules")
    report.finish()


async def _measure(directory: Path, events: int, counting: Counting) -> None:
    http_port, rpc_port, gossip_port, ops_port = _free_ports(4)
    config = Config(
        name="calls",
        data_dir=directory / "data",
        http_addr=("127.0.0.1", http_port),
        rpc_addr=("127.0.0.1", rpc_port),
        gossip_addr=("127.0.0.1", gossip_port),
        ops_addr=("127.0.0.1", ops_port),
    )
    ended = trio.Event()
    token = trio.lowlevel.current_trio_token()
    clients = threading.Thread(
        target=_publish, args=(http_port, rpc_port, events, token, ended), daemon=True
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: node.run(config, task_status=task_status))
        counting.start()
        clients.start()
        await ended.wait()
        counting.stop()
        nursery.cancel_scope.cancel()


def _publish(
    http_port: int, rpc_port: int, events: int, token: trio.lowlevel.TrioToken, ended: trio.Event
) -> None:
    """Read one stream and publish, in a thread of its own, which is not counted."""
    try:
        asyncio.run(_publish_each(http_port, rpc_port, events))
    finally:
        token.run_sync_soon(ended.set)


async def _publish_each(http_port: int, rpc_port: int, events: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
    writer.write(b"GET /.well-known/mercure?topic=* HTTP/1.1\r\nHost: bench\r\n\r\n")
    await reader.readuntil(b": ok")
    started = time.monotonic()
    async with open_publish_stream(("127.0.0.1", rpc_port), None) as stream:
        for number in range(events):
            await stream.publish([Draft(("topic",), f'{{"number":{number}}}')])
            await asyncio.sleep(PAUSE_S)
    tell(f"{events} events in {time.monotonic() - started:.1f} s")
    writer.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    main()
