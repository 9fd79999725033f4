"""The node's side: starts web workers, tells them what is applied, watches and replaces them.

Nothing here waits for a worker. What one does not take is kept, up to a bound; then, or when it
says nothing for too long, it is killed, and another one takes over its listening socket, with the
connections that wait there. Its clients come back, to any of them.
"""

import os
import pickle
import random
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
import trio
from prometheus_client import Counter

from noti.address import Address, format_address
from noti.authorization.authorizer import Authorizer
from noti.authorization.revoking import Revoking
from noti.backoff import Backoff
from noti.config import Config
from noti.die_with_parent import dying_with_us
from noti.errors import (
    AddressInUse,
    MessageInvalid,
    NotiError,
    Overloaded,
    WorkerLost,
    leaves_of,
    reason_of,
)
from noti.history.store import Store
from noti.http.app import create_operations_app
from noti.http.clients import CommandLog
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.ops import STOPPING, NodeOperations, Operations
from noti.http.ops_server import serve_operators
from noti.listening import open_listeners
from noti.optional import contained, keep_going
from noti.ports import Clock
from noti.presence.presence import Presence
from noti.publishing.ports import Publishing
from noti.streams.open_streams import StreamObserver
from noti.web_workers.link import Link
from noti.web_workers.messages import (
    Answered,
    Ask,
    Drain,
    Heartbeat,
    Listening,
    Message,
    NodeState,
    Page,
    Read,
    Start,
    Submit,
    WaitNews,
)
from noti.web_workers.shared_state import SharedState

log = structlog.get_logger("noti.web_workers")

LOOK_EVERY_S: Final = 0.25
SILENT_S_MAX: Final = 5.0
"""A worker says that it is alive ten times a second. One that has not for so long hangs; what this
process was stopped for does not count."""
STARTS_WITHIN_S: Final = 60.0
"""The same until it takes connections: it loads its program, and reads a large history."""
READY_WITHIN_S: Final = 20.0
"""How long a node waits for its workers when it starts; then it goes on without them."""
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""What a worker has not taken yet; it takes 100 MB/s when it runs."""
REQUESTS_MAX: Final = 4096
"""Of one worker under way, beside the commands of its publisher, which bounds them."""
STATE_EVERY_S: Final = 0.1
LISTEN_BACKLOG: Final = 4096
GRACE_S: Final = 1.0
"""How much longer a worker may take to end than its streams."""
KILLED_WITHIN_S: Final = 5.0
"""The kernel closes its sockets and frees its memory, some 0.1 s for 20,000 streams."""
LAG_BYTES: Final = 8 * 1024 * 1024
"""What waits for a worker that lives, above which publishers are slowed down; far below the bound
at which it is replaced."""
DEAF_S: Final = 1.0
"""A worker that has said nothing for so long slows nobody down any more: it may hang."""

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 5.0
"""Pauses before a worker is replaced double from the first to the last."""

REPLACED: Final = Counter(
    "noti_web_workers_replaced_total", "Web workers that died or hung, and were replaced."
)

AT_FIRST: Final = Heartbeat(0, 0.0)


@dataclass(eq=False)
class _Worker:
    """One process."""

    number: int
    process: subprocess.Popen[bytes]
    link: Link
    requests: trio.Nursery
    alive: Heartbeat = AT_FIRST
    listening: bool = False
    silent_s: float = 0.0
    under_way: int = 0


class WebWorkers:
    """The browsers of a node, at its workers: `noti.http.clients.Clients`."""

    def __init__(self, config: Config, count: int, clock: Clock, rng: random.Random) -> None:
        """Prepare; nothing is started before `serve`."""
        self._config = config
        self._count = count
        self._clock = clock
        self._rng = rng
        self._state: SharedState
        self._workers: dict[int, _Worker] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._falls = trio.Event()
        self._draining = False
        self._commands: CommandLog
        self._operations: Operations
        self._node: NodeView
        self._last_state = NodeState(ready=False, leads=False)

    @property
    def hub(self) -> "WebWorkers":
        """The streams of all workers."""
        return self

    @property
    def clients(self) -> int:
        """Streams open now."""
        return sum(worker.alive.clients for worker in self._workers.values())

    @property
    def pressure(self) -> float:
        """How full the backlog of clients that read is, at the worker where it is fullest."""
        return max(map(_pressure_of, self._workers.values()), default=0.0)

    def observe(self, observer: StreamObserver) -> None:
        """Nothing: each worker announces its own streams."""

    def disconnect(self, *, subject: str | None = None, token_id: str | None = None) -> int:
        """Nothing: each worker reads what is revoked for itself."""
        return 0

    def processes(self) -> list[dict[str, object]]:
        """Return how the workers stand, in the order of their numbers, ready for JSON."""
        return [_shown(number, self._workers.get(number)) for number in self._numbers()]

    def _numbers(self) -> range:
        return range(1, self._count + 1)

    def state_machine(self, store: Store) -> SharedState:
        """Return what applies commands to `store` and has workers do so too."""
        self._state = SharedState(store)
        return self._state

    def abandon(self) -> None:
        """When `serve` is cancelled from now on, kill the workers at once."""
        self._falls.set()

    async def serve(
        self,
        node: NodeView,
        publishing: Publishing,
        *,
        commands: CommandLog,
        authorizer: Authorizer,
        presence: Presence | None,
        revoking: Revoking,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep workers going until cancelled; then end them in order."""
        self._commands, self._node = commands, node
        self._operations = NodeOperations(node, self._why_not_serving)
        listeners = await _listeners(self._config.http_addr, self._count)
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve_until, stop, listeners)
            try:
                if self._config.ops_addr is not None:
                    operators = await open_listeners(self._config.ops_addr, "--ops-addr")
                    web = HttpConfig()
                    app = create_operations_app(self._operations, web)
                    await nursery.start(serve_operators, operators, app, web)
                await self._wait_until_all_listen()
                host, port = listeners[0][0].getsockname()[:2]
                log.info("listening for http", host=host, port=port, web_workers=self._count)
                task_status.started((host, port))
                await trio.sleep_forever()
            finally:
                stop.set()

    async def _serve_until(
        self,
        stop: trio.Event,
        listeners: list[list[socket.socket]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop`; shielded, as a cancellation from above becomes `stop`."""
        with trio.CancelScope(shield=True) as service:
            try:
                async with trio.open_nursery() as nursery:
                    for number, ours in enumerate(listeners, 1):
                        run = partial(self._keep_worker, number, ours)
                        nursery.start_soon(
                            keep_going, f"web worker {number}", run, self._clock, self._rng
                        )
                    nursery.start_soon(self._state.run)
                    nursery.start_soon(self._watch_node)
                    task_status.started()
                    await stop.wait()
                    self._draining = True
                    _close(listeners)
                    if not self._falls.is_set():
                        drain_s = self._config.sse_drain_s + HttpConfig().grace_s + 1.0 + GRACE_S
                        service.deadline = trio.current_time() + drain_s
                        for worker in self._workers.values():
                            worker.link.send(Drain())
                        while self._workers:
                            await self._changed.park()
                    nursery.cancel_scope.cancel()
            finally:
                _close(listeners)

    async def _wait_until_all_listen(self) -> None:
        with trio.move_on_after(READY_WITHIN_S) as patience:
            while sum(worker.listening for worker in self._workers.values()) < self._count:
                await self._changed.park()
        if patience.cancelled_caught:
            log.error("web workers do not start; the node goes on", count=self._count)

    async def _watch_node(self) -> None:
        """Tell the workers how the node is, when that changes."""
        while True:
            state = NodeState(self._node.ready(), self._node.is_leader())
            if state != self._last_state:
                self._last_state = state
                for worker in self._workers.values():
                    worker.link.send(state)
            await trio.sleep(STATE_EVERY_S)

    def _why_not_serving(self) -> tuple[str, str] | None:
        if self._draining:
            return STOPPING
        if not any(worker.listening for worker in self._workers.values()):
            return "web_workers", "no web worker takes connections: see the log"
        return None

    # --- one worker -------------------------------------------------------------------------------

    async def _keep_worker(self, number: int, listeners: list[socket.socket]) -> None:
        """Run one process after the other."""
        backoff = Backoff(self._rng, first_s=PAUSE_FIRST_S, most_s=PAUSE_MAX_S)
        while not self._draining:
            began, problem = trio.current_time(), ""
            try:
                await self._run_worker(number, listeners)
            except* WorkerLost as group:
                problem = str(leaves_of(group)[0])
            if trio.current_time() - began > PAUSE_MAX_S:
                backoff.succeeded()
            pause_s = backoff.failed()
            REPLACED.inc()
            log.warning("web worker is replaced", problem=problem, pause_s=round(pause_s, 2))
            await trio.sleep(pause_s)
        await trio.sleep_forever()

    async def _run_worker(self, number: int, listeners: list[socket.socket]) -> None:
        """Run one process to its end; raises `WorkerLost` unless it was told to end."""
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        inherited = [theirs.fileno(), *(one.fileno() for one in listeners)]
        with theirs:
            command = [sys.executable, "-m", "noti.web_workers", *map(str, (number, *inherited))]
            # Here and not in a thread, which the child would take for its parent.
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - 2 ms, when a worker starts; our own
                dying_with_us(*command), pass_fds=inherited, stdin=subprocess.DEVNULL
            )
        try:
            async with stream, trio.open_nursery() as nursery:
                worker = _Worker(number, process, Link(stream), nursery)
                with self._counted(worker):
                    self._state.join(worker.link, self._start_of(number))
                    worker.link.send(self._last_state)
                    nursery.start_soon(self._watch, worker)
                    nursery.start_soon(self._converse, worker)
                    await _exited(process)
                    nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.move_on_after(KILLED_WITHIN_S, shield=True):
                await _exited(process)
        if self._draining:
            await trio.sleep_forever()
        raise WorkerLost(f"web worker {number} has ended with status {process.returncode}")

    def _start_of(self, number: int) -> Start:
        return Start(pickle.dumps(self._config), number, self._node.node_id)

    async def _converse(self, worker: _Worker) -> None:
        try:
            await worker.link.run(partial(self._take, worker))
        except* WorkerLost:
            await trio.sleep_forever()  # its process ends, and that says more

    @contextmanager
    def _counted(self, worker: _Worker) -> Iterator[None]:
        self._workers[worker.number] = worker
        try:
            yield
        finally:
            del self._workers[worker.number]
            self._state.leave(worker.link)
            self._changed.unpark_all()

    async def _watch(self, worker: _Worker) -> None:
        """Raise `WorkerLost` when a worker hangs, or does not take what it is told."""
        last = trio.current_time()
        while True:
            await trio.sleep(LOOK_EVERY_S)
            now = trio.current_time()
            worker.silent_s += min(now - last, 2 * LOOK_EVERY_S)
            last = now
            most_s = SILENT_S_MAX if worker.listening else STARTS_WITHIN_S
            if worker.silent_s > most_s:
                raise WorkerLost(f"web worker {worker.number} has said nothing for {most_s:g} s")
            if worker.link.waiting_bytes > WAITING_BYTES_MAX:
                raise WorkerLost(f"web worker {worker.number} does not take what it is told")

    # --- what a worker says -----------------------------------------------------------------------

    def _take(self, worker: _Worker, message: Message) -> None:
        worker.silent_s = 0.0
        match message:
            case Heartbeat():
                worker.alive = message
            case Submit(number, command):
                self._commands.submit(command, partial(self._answer, worker, number))
            case Read(number):
                self._do(worker, number, self._commands.read)
            case WaitNews(number):
                self._do(worker, number, self._commands.wait_news)
            case Ask(number, path, query):
                worker.requests.start_soon(self._page, worker, number, path, query)
            case Listening():
                worker.listening = True
                self._changed.unpark_all()
            case _:
                raise MessageInvalid(f"a web worker never says {type(message).__name__}")

    def _answer(self, worker: _Worker, number: int, outcome: int | NotiError) -> None:
        # What is applied is told before the answer, so that the worker has it then.
        self._state.flush()
        if isinstance(outcome, NotiError):
            answer = Answered(number, 0, type(outcome).__name__, str(outcome))
        else:
            answer = Answered(number, outcome, "", "")
        worker.link.send(answer)

    def _do(self, worker: _Worker, number: int, what: Callable[[], Awaitable[object]]) -> None:
        if worker.under_way >= REQUESTS_MAX:
            self._answer(worker, number, Overloaded("too many requests of one web worker"))
            return
        worker.under_way += 1
        worker.requests.start_soon(self._wait_for, worker, number, what)

    async def _wait_for(
        self, worker: _Worker, number: int, what: Callable[[], Awaitable[object]]
    ) -> None:
        outcome: int | NotiError = 0
        try:
            await what()
        except NotiError as error:
            outcome = error
        finally:
            worker.under_way -= 1
        self._answer(worker, number, outcome)

    async def _page(self, worker: _Worker, number: int, path: str, query: str) -> None:
        with contained("web worker's request"):
            answer = await self._operations(path, query)
            worker.link.send(Page(number, answer.status, list(answer.headers), answer.body))


def _shown(number: int, worker: _Worker | None) -> dict[str, object]:
    if worker is None:
        return {"number": number, "pid": None, "state": "dead", "clients": 0, "pressure": 0.0}
    return {
        "number": number,
        "pid": worker.process.pid,
        "state": "serving" if worker.listening else "starting",
        "clients": worker.alive.clients,
        "pressure": round(_pressure_of(worker), 3),
    }


def _pressure_of(worker: _Worker) -> float:
    """Return how far publishers are ahead of a worker that lives, and of its clients."""
    if not worker.alive.clients or worker.silent_s > DEAF_S:
        return 0.0
    lag_bytes = max(0, worker.link.waiting_bytes - LAG_BYTES)
    return max(worker.alive.pressure, lag_bytes / WAITING_BYTES_MAX)


async def _listeners(bind: Address, count: int) -> list[list[socket.socket]]:
    """Return for each worker the sockets on which it listens, all at the same address.

    They stay open here: what waits at one whose worker has died, its successor takes. Raises
    `AddressInUse`.
    """
    # One without a share in it shows whether the address is free, and which port it is.
    first = await open_listeners(bind, "--http-addr")
    addresses = [(one.family, one.getsockname()) for one in first]
    if bind[1] == 0:
        addresses = addresses[:1]
    for one in first:
        one.close()
    try:
        return [[_listener(family, at) for family, at in addresses] for _ in range(count)]
    except OSError as error:
        problem = f"--http-addr {format_address(bind)} cannot be used: {reason_of(error)}"
        raise AddressInUse(f"{problem}; choose another address") from error


def _close(listeners: list[list[socket.socket]]) -> None:
    for one in listeners:
        for listener in one:
            listener.close()


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    listener.listen(LISTEN_BACKLOG)
    return listener


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Return when a process has ended."""
    if process.returncode is not None:
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    process.wait()
