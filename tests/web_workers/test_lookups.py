"""What web workers know of an event is put together; one that is silent holds nobody up."""

from typing import cast

import trio
import trio.testing

from noti.tracing.lookup import ProcessReport, SentEvent
from noti.tracing.refusals import Refusal
from noti.web_workers.lookups import WorkersLookups
from noti.web_workers.messages import Find, Found, Message
from noti.web_workers.worker_process import WorkerProcess


class Asked:
    """A worker that is asked, as far as a lookup sees it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.questions: list[Message] = []
        self.link = self

    def send(self, message: Message) -> None:
        self.questions.append(message)


async def test_answers_in_time_are_put_together_and_the_silent_one_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lookups, workers = WorkersLookups(), [Asked(1), Asked(2)]
    processes = cast("list[WorkerProcess]", workers)
    reports: list[ProcessReport] = []

    async def ask() -> None:
        reports.extend(await lookups.ask(processes, "a", [3]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert workers[0].questions == workers[1].questions == [Find(1, "a", [3])]
        lookups.found(processes[0], Found(1, [[3, 20, True]], [[5, "full", 2]]))
    assert reports == [
        ProcessReport(1, [SentEvent(3, 20, complete=True)], [Refusal(5, "full", 2)]),
        ProcessReport(2, [SentEvent(3, 0, complete=False)], []),
    ]
    lookups.found(processes[1], Found(1, [[3, 1, True]], []))  # too late, and nobody's


async def test_all_answers_are_waited_for_no_longer_than_it_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lookups = WorkersLookups()
    process = cast("WorkerProcess", Asked(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lookups.ask, [process], "a", [])
        await trio.testing.wait_all_tasks_blocked()
        lookups.found(process, Found(1, [], []))
    assert trio.current_time() == 0
