"""Asks web workers for their metrics, and shows them as the node's."""

from typing import Final

import trio
from prometheus_client import REGISTRY, generate_latest

from noti.config import Config
from noti.web_workers.merging import Family, MergedRegistry, families_of, lasting, merged
from noti.web_workers.messages import Measure, Measured
from noti.web_workers.worker_process import WorkerProcess

ANSWERS_WITHIN_S: Final = 0.5
"""A worker needs some ms. Of one that hangs, the last known values are shown."""


class WorkersMetrics:
    """The metrics of a node and its workers."""

    def __init__(self, config: Config) -> None:
        self.change(config)
        self._workers: dict[int, WorkerProcess] = {}
        self._known: dict[int, list[Family]] = {}
        self._answered: dict[int, int] = {}
        """The last question that each worker has answered."""
        self._ended: list[Family] = []
        """What still counts of workers that have ended."""
        self._question = 0
        self._changed = trio.lowlevel.ParkingLot()

    def change(self, config: Config) -> None:
        """Show these limits of the node from now on."""
        self._bounds = {"noti_streams_clients_max": float(config.sse_clients_max)}

    def join(self, worker: WorkerProcess) -> None:
        """Ask this worker, too, from now on."""
        self._workers[worker.number] = worker
        self._answered[worker.number] = 0

    def leave(self, number: int) -> None:
        """Keep what counts of a worker that is gone; also if it never joined."""
        self._workers.pop(number, None)
        self._ended = merged([self._ended, lasting(self._known.pop(number, []))])
        self._changed.unpark_all()

    def measured(self, worker: WorkerProcess, answer: Measured) -> None:
        """Note what a worker has measured."""
        self._known[worker.number] = [Family(*family) for family in answer.families]
        self._answered[worker.number] = answer.number
        self._changed.unpark_all()

    async def page(self) -> bytes:
        """Return all metrics as Prometheus reads them, after `ANSWERS_WITHIN_S` at most."""
        self._question += 1
        question = self._question
        for worker in self._workers.values():
            if worker.listening:
                worker.link.send(Measure(question))
        with trio.move_on_after(ANSWERS_WITHIN_S):
            while any(
                worker.listening and self._answered[worker.number] < question
                for worker in self._workers.values()
            ):
                await self._changed.park()
        processes = [families_of(REGISTRY), *self._known.values(), self._ended]
        return generate_latest(MergedRegistry(merged(processes, self._bounds)))
