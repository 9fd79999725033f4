"""What a web worker asks of its node: the log, its state, the answers to operators."""

from functools import partial
from typing import Final, assert_never

import trio

from noti.completion import Completion, OnDone, once_led
from noti.errors import (
    NotiError,
    NotLeader,
    Overloaded,
    ProposalUncertain,
    Unavailable,
    WorkerLost,
)
from noti.http.answers import Answer, plain
from noti.rpc.answers import ServerInfo
from noti.web_workers.link import Link
from noti.web_workers.messages import (
    Answered,
    Ask,
    NodeState,
    Page,
    Read,
    Submit,
    WaitNews,
)

ANSWER_WITHIN_S: Final = 10.0
"""A probe has given up long before."""

_ERRORS: Final = {one.__name__: one for one in (Overloaded, ProposalUncertain, Unavailable)}


class NodeLink:
    """The node, as its worker sees it: a `CommandLog` and a `NodeView`."""

    hostname = build = node_id = ""
    """Operators ask the node, as for its troubles, its servers and its status."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._state = NodeState(ready=False, leads=False)
        self._number = 0
        self._waiting: dict[int, OnDone[int]] = {}
        self._asked: dict[int, Completion[Answer]] = {}

    # --- the log ----------------------------------------------------------------------------------

    def submit(self, command: bytes, on_done: OnDone[int]) -> None:
        """Have a command committed, in the order of the calls. See `CommandLog`."""
        self._link.send(Submit(self._next(on_done), command))

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed, and applied here. See `CommandLog`."""
        await once_led(partial(self.submit, command), self.wait_news)

    async def read(self) -> None:
        """Return when everything committed before this call is applied here."""
        completion: Completion[int] = Completion()
        self._link.send(Read(self._next(completion)))
        await completion.wait()

    async def wait_news(self) -> None:
        """Return when there may be another leader."""
        completion: Completion[int] = Completion()
        self._link.send(WaitNews(self._next(completion)))
        await completion.wait()

    def _next(self, on_done: OnDone[int]) -> int:
        self._number += 1
        self._waiting[self._number] = on_done
        return self._number

    # --- the node ---------------------------------------------------------------------------------

    def is_leader(self) -> bool:
        """Whether the node leads."""
        return self._state.leads

    def ready(self) -> bool:
        """Whether browsers may be sent here."""
        return self._state.ready

    async def barrier(self) -> None:
        """Return when everything committed before this call is applied here."""
        await self.read()

    def troubles(self) -> list[dict[str, object]]:
        """Nothing."""
        return []

    def servers(self) -> list[ServerInfo]:
        """Nothing."""
        return []

    async def trace(self, event_id: str) -> dict[str, object]:
        """Nothing."""
        return {}

    def status(self) -> dict[str, object]:
        """Nothing."""
        return {}

    async def probes(self, path: str, query: str) -> Answer:
        """Return how the node answers a probe."""
        self._number += 1
        number, completion = self._number, Completion[Answer]()
        self._asked[number] = completion
        try:
            self._link.send(Ask(number, path, query))
            with trio.move_on_after(ANSWER_WITHIN_S):
                return await completion.wait()
        finally:
            self._asked.pop(number, None)
        return plain(503, "The node that this process belongs to does not answer.")

    # --- what it says -----------------------------------------------------------------------------

    def take(self, message: Answered | Page | NodeState) -> None:
        """Take what the node has answered, or says of itself."""
        match message:
            case Answered(number, log_index, error, problem):
                self._waiting.pop(number)(_error(error, problem) if error else log_index)
            case Page(number, status, headers, body):
                if (completion := self._asked.get(number)) is not None:
                    shown = [(str(name), str(text)) for name, text in headers]
                    completion(Answer(status, shown, body))
            case NodeState():
                self._state = message
            case _:
                assert_never(message)

    def lost(self) -> None:
        """Note that the node is gone: what was asked for is not answered any more."""
        waiting, self._waiting = self._waiting, {}
        for on_done in waiting.values():
            on_done(ProposalUncertain("the node is gone"))
        for completion in self._asked.values():
            completion(WorkerLost("the node is gone"))


def _error(name: str, problem: str) -> NotiError:
    if name == NotLeader.__name__:
        return NotLeader(None)
    return _ERRORS.get(name, Unavailable)(problem)
