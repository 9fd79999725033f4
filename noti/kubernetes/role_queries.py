"""Asks the nodes of one cluster for their roles, each in a task of its own: none delays another."""

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final, NoReturn, Protocol

import structlog
import trio

from noti.address import Address, format_address
from noti.errors import PeerUnavailable
from noti.kubernetes import metrics
from noti.kubernetes.objects import Pod
from noti.rpc.answers import NodeRole

log = structlog.get_logger("noti.kubernetes")

ASK_EVERY_S: Final = 0.5
"""A new leader is found within this time, give or take a tenth."""
ANSWER_S_MAX: Final = 1.0
"""Longest wait for an answer, with connecting and the handshake; usual are 2 ms."""
ASK_AGAIN_S: Final = 0.05
"""After the first failure: the connection may have been old. After the second it is no answer."""


class RoleSource(Protocol):
    """Nodes that can be asked."""

    async def ask(self, to: Address, name: str) -> NodeRole:
        """Return the role that the node `name` reports; raises `PeerUnavailable`."""

    def forget(self, to: Address, name: str) -> None:
        """Close the connection to a node, if there is one."""


class RoleQueries:
    """The tasks that ask, and the answers."""

    def __init__(self, source: RoleSource, rng: Random, changed: Callable[[], None]) -> None:
        """`changed` is called when an answer differs from the one before."""
        self._source = source
        self._rng = rng
        self._changed = changed
        self._scopes: dict[tuple[str, Address], trio.CancelScope] = {}
        self._answers: dict[str, NodeRole | None] = {}

    @property
    def answers(self) -> Mapping[str, NodeRole | None]:
        """The last answer of each pod that was asked, by uid; None when it does not answer."""
        return self._answers

    def query(self, pods: Iterable[tuple[Address, Pod]], nursery: trio.Nursery) -> None:
        """From now on ask these and no others, by tasks in `nursery`."""
        wanted = {(pod.uid, to): pod for to, pod in pods}
        for key in self._scopes.keys() - wanted.keys():
            self._scopes.pop(key).cancel()
            self._answers.pop(key[0], None)
        for key in wanted.keys() - self._scopes.keys():
            self._scopes[key] = scope = trio.CancelScope()
            nursery.start_soon(self._query_until_cancelled, key[1], wanted[key], scope)

    async def _query_until_cancelled(self, to: Address, pod: Pod, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await self._query_repeatedly(to, pod, scope)
            finally:
                self._source.forget(to, pod.name)

    async def _query_repeatedly(self, to: Address, pod: Pod, scope: trio.CancelScope) -> NoReturn:
        failures = 0
        while True:
            answer, problem = await self._query_once(to, pod.name)
            failures = 0 if answer is not None else failures + 1
            if scope.cancel_called:
                await trio.sleep_forever()
            if failures != 1:
                self._note(pod, answer, problem)
            pause_s = ASK_AGAIN_S if failures == 1 else ASK_EVERY_S
            await trio.sleep(pause_s * self._rng.uniform(0.9, 1.1))

    async def _query_once(self, to: Address, name: str) -> tuple[NodeRole | None, str]:
        problem = f"no answer from {format_address(to)} within {ANSWER_S_MAX:g} s"
        answer = None
        with trio.move_on_after(ANSWER_S_MAX):
            try:
                answer = await self._source.ask(to, name)
            except PeerUnavailable as error:
                problem = str(error)
        metrics.ROLE_QUESTIONS.labels("no" if answer is None else "yes").inc()
        return answer, problem

    def _note(self, pod: Pod, answer: NodeRole | None, problem: str) -> None:
        new = pod.uid not in self._answers
        before = self._answers.get(pod.uid)
        if not new and answer == before:
            return
        self._answers[pod.uid] = answer
        if answer is None:
            log.warning("pod does not answer", pod=pod.name, reason=problem)
        elif before is None and not new:
            log.info("pod answers again", pod=pod.name)
        self._changed()
