"""Asks web workers what they know of an event."""

from collections.abc import Sequence
from typing import Final

import trio

from noti.tracing.lookup import ProcessReport, SentEvent
from noti.tracing.refusals import Refusal
from noti.web_workers.messages import Find, Found
from noti.web_workers.worker_process import WorkerProcess

ANSWERS_WITHIN_S: Final = 0.5
"""A worker needs some ms. One that hangs is left out."""


class WorkersLookups:
    """The questions of one node."""

    def __init__(self) -> None:
        self._question = 0
        self._answers: dict[int, dict[int, ProcessReport]] = {}
        """By question and worker."""
        self._changed = trio.lowlevel.ParkingLot()

    def found(self, worker: WorkerProcess, answer: Found) -> None:
        """Note an answer; one that comes too late is nobody's."""
        if (answers := self._answers.get(answer.number)) is not None:
            sent = [SentEvent(*one) for one in answer.sent]
            refused = [Refusal(*one) for one in answer.refused]
            answers[worker.number] = ProcessReport(worker.number, sent, refused)
            self._changed.unpark_all()

    async def ask(
        self, workers: Sequence[WorkerProcess], event_id: str, seqs: Sequence[int]
    ) -> list[ProcessReport]:
        """Return what workers know of an id whose events these are, of those that answer in time.

        Events may have been sent by one that does not: they are then not known completely.
        """
        self._question += 1
        question, answers = self._question, dict[int, ProcessReport]()
        self._answers[question] = answers
        try:
            for worker in workers:
                worker.link.send(Find(question, event_id, list(seqs)))
            with trio.move_on_after(ANSWERS_WITHIN_S):
                while len(answers) < len(workers):
                    await self._changed.park()
        finally:
            del self._answers[question]
        silent = [SentEvent(seq, 0, complete=False) for seq in seqs]
        unknown = [
            ProcessReport(worker.number, silent, [])
            for worker in workers
            if worker.number not in answers
        ]
        return [*answers.values(), *unknown]
