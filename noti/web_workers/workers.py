"""The node's side: starts web workers, tells them what is applied, watches and replaces them.

Nothing here waits for a worker. What one does not take is kept, up to a bound; then, or when it
says nothing for too long, it is killed, and another one takes over its listening socket, with the
connections that wait there. Its clients come back, to any of them.
"""

import pickle
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog
import trio
from prometheus_client import Counter

from noti.address import Address
from noti.authorization.authorizer import Authorizer
from noti.authorization.revoking import Revoking
from noti.backoff import Backoff
from noti.config import Config
from noti.descriptors import Shares
from noti.errors import (
    MessageInvalid,
    WorkerLost,
    leaves_of,
)
from noti.history.store import Store
from noti.http.app import create_operations_app
from noti.http.clients import CommandLog
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.ops import STOPPING, NodeOperations, NodeProbes, Operations
from noti.http.ops_server import serve_operators
from noti.listening import open_listeners
from noti.optional import keep_going
from noti.ports import Clock
from noti.presence.presence import Presence
from noti.publishing.ports import Publishing
from noti.service import set_when_cancelled
from noti.streams.open_streams import StreamObserver
from noti.tracing.lookup import ProcessReport
from noti.tracing.trail import EventTrail
from noti.web_workers.limits import WorkersLimits
from noti.web_workers.link import Link
from noti.web_workers.listeners import close_all, open_shared_listeners
from noti.web_workers.lookups import WorkersLookups
from noti.web_workers.messages import (
    Ask,
    Counts,
    Drain,
    Found,
    Heartbeat,
    Listening,
    Measured,
    Message,
    NodeState,
    Read,
    Settings,
    Start,
    Submit,
    WaitNews,
)
from noti.web_workers.metrics import WorkersMetrics
from noti.web_workers.requests import WorkersRequests
from noti.web_workers.shared_state import SharedState
from noti.web_workers.worker_process import WorkerProcess, exited, kill, spawn

log = structlog.get_logger("noti.web_workers")

READY_WITHIN_S: Final = 20.0
"""How long a node waits for its workers when it starts; then it goes on without them."""
STATE_EVERY_S: Final = 0.1
GRACE_S: Final = 1.0
"""How much longer a worker may take to end than its streams."""

PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 5.0
"""Pauses before a worker is replaced double from the first to the last."""

REPLACED: Final = Counter(
    "noti_web_workers_replaced_total", "Web workers that died or hung, and were replaced."
)


class WebWorkers:
    """The browsers of a node, at its workers: `noti.http.clients.Clients`."""

    def __init__(self, config: Config, count: int, clock: Clock, rng: random.Random) -> None:
        """Prepare; nothing is started before `serve`."""
        self._config = config
        self._count = count
        self._clock = clock
        self._rng = rng
        self._state: SharedState
        self._limits = WorkersLimits(config, count)
        self._metrics = WorkersMetrics(config)
        self._lookups = WorkersLookups()
        self._workers: dict[int, WorkerProcess] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._falls = trio.Event()
        self._draining = False
        self._requests: WorkersRequests
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
        return max((worker.pressure for worker in self._workers.values()), default=0.0)

    def observe(self, observer: StreamObserver) -> None:
        """Nothing: each worker announces its own streams."""

    def disconnect(self, *, subject: str | None = None, token_id: str | None = None) -> int:
        """Nothing: each worker reads what is revoked for itself."""
        return 0

    def processes(self) -> list[dict[str, object]]:
        """Return how the workers stand, in the order of their numbers, ready for JSON."""
        return [self._shown(number) for number in range(1, self._count + 1)]

    def change(self, config: Config, shares: Shares) -> None:
        """Have all workers go by other settings from now on, also those that begin later."""
        self._config = config
        self._limits.resize(config.sse_clients_max)
        self._metrics.change(config)
        settings = Settings(pickle.dumps(config))
        for worker in self._workers.values():
            worker.link.send(settings)

    def _shown(self, number: int) -> dict[str, object]:
        if (worker := self._workers.get(number)) is not None:
            return worker.shown()
        return {"number": number, "pid": None, "state": "dead", "clients": 0, "pressure": 0.0}

    @property
    def trail(self) -> EventTrail:
        """What is known of the events that were applied of late."""
        return self._state.trail

    async def known_of(self, event_id: str, seqs: Sequence[int]) -> list[ProcessReport]:
        """Return what each worker knows of an id, whose events these are."""
        listening = [worker for worker in self._workers.values() if worker.listening]
        return await self._lookups.ask(listening, event_id, seqs)

    def state_machine(self, store: Store) -> SharedState:
        """Return what applies commands to `store` and has workers do so too."""
        self._state = SharedState(store, EventTrail(self._clock.wall_ms))
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
        self._node = node
        self._operations = NodeOperations(node, self._why_not_serving, self._metrics.page)
        probes = NodeProbes(node, self._why_not_serving)
        self._requests = WorkersRequests(commands, probes, self._state.flush)
        listeners = await open_shared_listeners(self._config.http_addr, self._count)
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(set_when_cancelled, stop)
            await nursery.start(self._serve_until, stop, listeners)
            operators = await open_listeners(self._config.ops_addr, "--ops-addr")
            app = create_operations_app(self._operations)
            await nursery.start(serve_operators, operators, app)
            await self._wait_until_all_listen()
            host, port = listeners[0][0].getsockname()[:2]
            log.info("listening for http", host=host, port=port, web_workers=self._count)
            task_status.started((host, port))

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
                    close_all(listeners)
                    if not self._falls.is_set():
                        drain_s = self._config.sse_drain_s + HttpConfig().grace_s + 1.0 + GRACE_S
                        service.deadline = trio.current_time() + drain_s
                        for worker in self._workers.values():
                            worker.link.send(Drain())
                        while self._workers:
                            await self._changed.park()
                    nursery.cancel_scope.cancel()
            finally:
                close_all(listeners)

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
        process, stream = spawn(number, listeners)
        try:
            async with stream, trio.open_nursery() as nursery:
                worker = WorkerProcess(number, process, Link(stream), nursery)
                with self._counted(worker):
                    self._state.join(worker.link, self._start_of(number))
                    worker.link.send(self._last_state)
                    self._limits.join(worker)
                    self._metrics.join(worker)
                    nursery.start_soon(worker.watch)
                    nursery.start_soon(self._converse, worker)
                    await exited(process)
                    nursery.cancel_scope.cancel()
        finally:
            await kill(process)
            self._limits.leave(number)
            self._metrics.leave(number)
        if self._draining:
            await trio.sleep_forever()
        raise WorkerLost(f"web worker {number} has ended with status {process.returncode}")

    def _start_of(self, number: int) -> Start:
        return Start(pickle.dumps(self._config), number, self._count, self._node.node_id)

    async def _converse(self, worker: WorkerProcess) -> None:
        try:
            await worker.link.run(partial(self._take, worker))
        except* WorkerLost:
            await trio.sleep_forever()  # its process ends, and that says more

    @contextmanager
    def _counted(self, worker: WorkerProcess) -> Iterator[None]:
        self._workers[worker.number] = worker
        try:
            yield
        finally:
            del self._workers[worker.number]
            self._state.leave(worker.link)
            self._changed.unpark_all()

    # --- what a worker says -----------------------------------------------------------------------

    def _take(self, worker: WorkerProcess, message: Message) -> None:
        worker.silent_s = 0.0
        match message:
            case Heartbeat():
                worker.alive = message
                self._limits.reported(worker, message)
            case Measured():
                self._metrics.measured(worker, message)
            case Found():
                self._lookups.found(worker, message)
            case Counts():
                self._limits.counted(worker, message)
            case Submit() | Read() | WaitNews() | Ask():
                self._requests.take(worker, message)
            case Listening():
                worker.listening = True
                self._changed.unpark_all()
            case _:
                raise MessageInvalid(f"a web worker never says {type(message).__name__}")
