"""Tells web workers how many streams and connections they may have, of what the node may."""

from collections.abc import Collection

from noti.config import Config
from noti.errors import MessageInvalid
from noti.web_workers.messages import Allowance, Counts, Heartbeat
from noti.web_workers.shared_limits import KINDS, Allowances, ClientTable
from noti.web_workers.worker_process import WorkerProcess


class WorkersLimits:
    """The limits of a node, as far as its workers share in them."""

    def __init__(self, config: Config, workers: int) -> None:
        self._allowances = Allowances(config.sse_clients_max, workers)
        self._tables = {kind: ClientTable() for kind in KINDS}
        self._workers: dict[int, WorkerProcess] = {}

    def resize(self, streams_max: int) -> None:
        """Let all workers together have so many streams from now on."""
        self._allowances.resize(streams_max)
        self._spread()

    def join(self, worker: WorkerProcess) -> None:
        """Tell a worker that begins, after its state, what it may have."""
        self._workers[worker.number] = worker
        worker.link.send(Allowance(self._allowances.began(worker.number)))
        for kind, table in self._tables.items():
            if elsewhere := table.elsewhere(worker.number, table.clients()):
                worker.link.send(Counts(kind, elsewhere))

    def leave(self, number: int) -> None:
        """Leave to the others what a worker had that is gone; also if it never joined."""
        self._workers.pop(number, None)
        self._allowances.ended(number)
        for kind, table in self._tables.items():
            self._tell_others(kind, number, table.ended(number))
        self._spread()

    def reported(self, worker: WorkerProcess, alive: Heartbeat) -> None:
        """Note how many streams a worker has."""
        self._allowances.reported(worker.number, alive.clients, alive.allowance)
        self._spread()

    def counted(self, worker: WorkerProcess, counts: Counts) -> None:
        """Note how many some clients have at a worker; raises `MessageInvalid`."""
        if counts.kind not in self._tables:
            raise MessageInvalid(f"clients are not counted for {counts.kind!r}")
        self._tables[counts.kind].reported(worker.number, counts.by_client)
        self._tell_others(counts.kind, worker.number, counts.by_client)

    def _tell_others(self, kind: str, number: int, clients: Collection[str]) -> None:
        for other in self._workers.values() if clients else ():
            if other.number != number:
                elsewhere = self._tables[kind].elsewhere(other.number, clients)
                other.link.send(Counts(kind, elsewhere))

    def _spread(self) -> None:
        for number, streams in self._allowances.changes().items():
            if (worker := self._workers.get(number)) is not None:
                worker.link.send(Allowance(streams))
            else:
                # Its successor is told when it begins.
                self._allowances.ended(number)
