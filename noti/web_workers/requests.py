"""Answers what web workers ask their node for: the log, its state, probes."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, assert_never

from noti.errors import NotiError, Overloaded
from noti.http.answers import plain
from noti.http.clients import CommandLog
from noti.http.ops import Operations
from noti.optional import contained
from noti.web_workers.messages import Answered, Ask, Page, Read, Submit, WaitNews
from noti.web_workers.worker_process import WorkerProcess

REQUESTS_MAX: Final = 4096
"""Of one worker under way, beside the commands of its publisher, which bounds them."""


class WorkersRequests:
    """Has done what workers ask for; each answer follows what was applied before it."""

    def __init__(self, commands: CommandLog, probes: Operations, flush: Callable[[], None]) -> None:
        """`flush` tells workers what is applied that they were not told yet."""
        self._commands = commands
        self._probes = probes
        self._flush = flush

    def take(self, worker: WorkerProcess, message: Submit | Read | WaitNews | Ask) -> None:
        """Begin to do what a worker asks for; never waits."""
        match message:
            case Submit(number, command):
                self._commands.submit(command, partial(self._answer, worker, number))
            case Read(number):
                self._do(worker, number, self._commands.read)
            case WaitNews(number):
                self._do(worker, number, self._commands.wait_news)
            case Ask(number, path, query):
                if worker.under_way >= REQUESTS_MAX:
                    busy = plain(503, "Too many requests of one web worker.")
                    worker.link.send(Page(number, busy.status, list(busy.headers), busy.body))
                    return
                worker.under_way += 1
                worker.requests.start_soon(self._page, worker, number, path, query)
            case _:
                assert_never(message)

    def _answer(self, worker: WorkerProcess, number: int, outcome: int | NotiError) -> None:
        # What is applied is told before the answer, so that the worker has it then.
        self._flush()
        if isinstance(outcome, NotiError):
            answer = Answered(number, 0, type(outcome).__name__, str(outcome))
        else:
            answer = Answered(number, outcome, "", "")
        worker.link.send(answer)

    def _do(
        self, worker: WorkerProcess, number: int, what: Callable[[], Awaitable[object]]
    ) -> None:
        if worker.under_way >= REQUESTS_MAX:
            self._answer(worker, number, Overloaded("too many requests of one web worker"))
            return
        worker.under_way += 1
        worker.requests.start_soon(self._wait_for, worker, number, what)

    async def _wait_for(
        self, worker: WorkerProcess, number: int, what: Callable[[], Awaitable[object]]
    ) -> None:
        outcome: int | NotiError = 0
        try:
            await what()
        except NotiError as error:
            outcome = error
        finally:
            worker.under_way -= 1
        self._answer(worker, number, outcome)

    async def _page(self, worker: WorkerProcess, number: int, path: str, query: str) -> None:
        try:
            with contained("web worker's request"):
                answer = await self._probes(path, query)
                worker.link.send(Page(number, answer.status, list(answer.headers), answer.body))
        finally:
            worker.under_way -= 1
