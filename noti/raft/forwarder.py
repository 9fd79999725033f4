"""Lets every node do what only the leader can: commit a command, read what is committed now.

Each request, of this node or forwarded to it as the leader, is answered once; nothing is repeated
that may have been done already. All that waits while a message is on its way to the leader goes
with the next one.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import prometheus_client
import trio

from noti.completion import Completion, OnDone, once_led
from noti.errors import MessageInvalid, NotiError, NotLeader, Overloaded, ProposalUncertain
from noti.ports import Clock
from noti.raft.core.messages import (
    REQUESTS_MAX,
    DemotionRequest,
    Forward,
    ForwardAnswer,
    ForwardOutcome,
    LeaderMessage,
    Message,
    NodeId,
)
from noti.raft.intake import Intake
from noti.raft.ports import Messenger
from noti.raft.replica import Replica

FORWARDED_MAX = 4096
"""Requests of other nodes under way here; more are rejected, and their publishers have to retry."""
BATCH_REQUESTS_MAX = 512
BATCH_BYTES_MAX = 1024 * 1024
"""In one message: a heartbeat may have to wait behind it."""
ANSWERS_AT_ONCE = 4096
"""In one message, which has to find room at its peer."""
LATE_ANSWER_S = 0.1
"""A leader that is one no more says what became of what it was asked, in a round trip."""
RETRY_S = 0.05
"""After an answer found too much waiting for its peer; a peer that reads takes that in less."""

_forwarded = prometheus_client.Counter(
    "noti_raft_forwarded_total", "Requests forwarded to the leader", ["outcome"]
)
_BY_OUTCOME = {outcome: _forwarded.labels(outcome.name.lower()) for outcome in ForwardOutcome}


@dataclass(frozen=True, slots=True)
class _Outstanding:
    """A request of this node that a leader has, or is about to get."""

    leader: NodeId
    command: bytes | None
    """None for a read."""
    on_done: OnDone[int]


@dataclass(slots=True, eq=False)
class _Asker:
    """A peer, as long as its stream lasts.

    It counts its requests from 1 after every start, so an answer must not outlive the stream on
    which it was asked for.
    """

    node_id: NodeId
    owed: int = 0
    """Its requests whose answers have not left."""
    answers: list[tuple[int, ForwardOutcome, int]] = field(default_factory=list)


class Forwarder:
    """Stands between the peers and the replica, and takes the forwarded part of the traffic."""

    def __init__(self, node_id: NodeId, replica: Replica, intake: Intake, clock: Clock) -> None:
        """Prepare; nothing is forwarded before `run`. Commands reach the replica by the intake."""
        self._node_id = node_id
        self._replica = replica
        self._intake = intake
        self._clock = clock
        self._messenger: Messenger | None = None
        self._late_at = math.inf
        """When an answer of a former leader comes too late."""
        self._number = 0
        self._outstanding: dict[int, _Outstanding] = {}
        self._unsent: deque[int] = deque()
        self._leaving: set[NodeId] = set()
        """Who asked this node to take its vote away, since its stream began."""
        self._received: deque[tuple[_Asker, Forward]] = deque()
        self._askers: dict[NodeId, _Asker] = {}
        self._answered: dict[_Asker, None] = {}
        """Those with answers that have not left."""
        self._under_way = 0
        self._work = trio.Event()
        replica.leader_changed = self._leader_changed

    # --- this node's requests ---------------------------------------------------------------------

    def submit(self, command: bytes, on_done: OnDone[int]) -> None:
        """Have the leader commit a command, in the order of the calls.

        `on_done` gets its index when it is committed and applied on this node; what `propose`
        raises; or `NotLeader` when nothing was done, or no leader is known.
        """
        if self._replica.is_ready_leader():
            self._intake.submit(command, on_done, at_once=True)
        else:
            self._ask(command, on_done)

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed, and applied on this node.

        Waits for a leader as long as there is none; the caller sets the deadline. Raises
        `Overloaded` or, when it may or may not have been committed, `ProposalUncertain`.
        """
        await once_led(partial(self.submit, command), self.wait_news)

    async def wait_news(self) -> None:
        """Return when there may be another leader."""
        await self._replica.wait_advanced()

    async def read(self) -> None:
        """Return when everything committed before this call is applied on this node.

        Waits for a leader as long as there is none; the caller sets the deadline.
        """
        while True:
            try:
                if self._replica.is_ready_leader():
                    await self._replica.wait_applied(await self._replica.read_index())
                    return
                completion: Completion[int] = Completion()
                self._ask(None, completion)
                await completion.wait()
                return
            except (NotLeader, Overloaded, ProposalUncertain):
                # Reading changes nothing, so asking again is always safe.
                await self.wait_news()

    def request_demotion(self) -> None:
        """Ask the leader, if there is one, to make this node a learner; never waits.

        May get lost: to be repeated until it is so.
        """
        leader = self._replica.status().leader
        if leader == self._node_id:
            self._leaving.add(self._node_id)
        elif leader is not None and self._messenger is not None:
            self._messenger.send(leader, DemotionRequest(self._node_id, 0))

    def leaving(self) -> frozenset[NodeId]:
        """Return who asked this node to take its vote away; only that node itself can."""
        return frozenset(self._leaving)

    def _ask(self, command: bytes | None, on_done: OnDone[int]) -> None:
        leader = self._replica.status().leader
        messenger = self._messenger
        if leader is None or messenger is None or leader not in messenger.connected():
            on_done(NotLeader(leader))
            return
        if len(self._outstanding) >= REQUESTS_MAX:
            on_done(Overloaded("the leader has not answered what it was asked; retry later"))
            return
        self._number += 1
        self._outstanding[self._number] = _Outstanding(leader, command, on_done)
        self._unsent.append(self._number)
        self._work.set()

    def _resolve(self, number: int, outcome: ForwardOutcome, index: int = 0) -> None:
        on_done = self._outstanding.pop(number).on_done
        _BY_OUTCOME[outcome].inc()
        match outcome:
            case ForwardOutcome.DONE:
                self._replica.when_applied(index, on_done)
            case ForwardOutcome.NOT_LEADER:
                on_done(NotLeader(None))
            case ForwardOutcome.OVERLOADED:
                on_done(Overloaded("the leader takes no more now; retry later, or more slowly"))
            case ForwardOutcome.UNCERTAIN:
                on_done(ProposalUncertain("the leader was lost while it had the command"))
            case _:
                assert_never(outcome)

    # --- what peers say ---------------------------------------------------------------------------

    def messages_received(self, messages: Sequence[Message]) -> None:
        """Pass on what is the core's."""
        self._intake.messages_received(messages)
        self._replica.messages_received(messages)

    def peer_connected(self, node_id: NodeId) -> None:
        """Note that the peer's requests count from here on; pass on."""
        self._askers[node_id] = _Asker(node_id)
        self._leaving.discard(node_id)
        self._replica.peer_connected(node_id)

    def peer_lost(self, node_id: NodeId) -> None:
        """Nobody will answer what that peer was asked, nor receive our answers; pass on."""
        self._give_up(lambda leader: leader == node_id)
        if (asker := self._askers.pop(node_id, None)) is not None:
            self._answered.pop(asker, None)
        self._intake.peer_lost(node_id)
        self._replica.peer_lost(node_id)

    def _leader_changed(self, leader: NodeId | None) -> None:
        """Give up what a former leader was asked, as far as that leaves nothing in doubt.

        It may be gone for long before its stream breaks, and nobody waits for it. But one that only
        hands over says at once what it did, and that it did not do the rest.
        """
        self._give_up(lambda asked: asked != leader, if_harmless=True)
        if any(one.leader != leader for one in self._outstanding.values()):
            self._late_at = min(self._late_at, self._clock.now() + LATE_ANSWER_S)
            self._work.set()

    def _give_up_late(self) -> None:
        """Wait no longer for an answer of a former leader, if it is time."""
        if self._clock.now() >= self._late_at:
            self._late_at = math.inf
            leader = self._replica.status().leader
            self._give_up(lambda asked: asked != leader)

    def _give_up(self, lost: Callable[[NodeId], bool], *, if_harmless: bool = False) -> None:
        """Wait no longer for lost leaders.

        With `if_harmless` only where nothing can be in doubt: what was not sent to them, and reads.
        """
        unsent = frozenset(self._unsent)
        for number, asked in [one for one in self._outstanding.items() if lost(one[1].leader)]:
            if number in unsent or asked.command is None:
                self._resolve(number, ForwardOutcome.NOT_LEADER)
            elif not if_harmless:
                self._resolve(number, ForwardOutcome.UNCERTAIN)

    def forward_received(self, message: LeaderMessage) -> None:
        """Take in another node's requests, or its answers to ours; never waits.

        Raises `MessageInvalid` when it asks on, though more than `REQUESTS_MAX` answers wait for
        it: no node does.
        """
        match message:
            case DemotionRequest(sender):
                self._leaving.add(sender)
            case Forward(sender):
                if (asker := self._askers.get(sender)) is not None:
                    self._take_in(asker, message)
            case ForwardAnswer(sender, _, outcomes):
                for number, outcome, index in outcomes:
                    asked = self._outstanding.get(number)
                    if asked is not None and asked.leader == sender:
                        self._resolve(number, outcome, index)
            case _:
                assert_never(message)

    def _take_in(self, asker: _Asker, message: Forward) -> None:
        asker.owed += len(message.proposals) + len(message.reads)
        if asker.owed > REQUESTS_MAX:
            raise MessageInvalid(f"more than {REQUESTS_MAX} requests that are not answered")
        self._received.append((asker, message))
        self._work.set()

    # --- the task ---------------------------------------------------------------------------------

    async def run(
        self,
        messenger: Messenger,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Forward and answer until cancelled; what waits then is uncertain."""
        self._messenger = messenger
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    retry_at = self._clock.now() + RETRY_S if self._answered else math.inf
                    with self._clock.scope_until(min(retry_at, self._late_at)):
                        await self._work.wait()
                    self._work = trio.Event()
                    self._give_up_late()
                    self._submit_received(nursery)
                    self._send_unsent(messenger)
                    self._send_answers(messenger)
                    messenger.flush()
        finally:
            self._messenger = None
            for number in list(self._outstanding):
                self._resolve(number, ForwardOutcome.UNCERTAIN)

    def _submit_received(self, nursery: trio.Nursery) -> None:
        while self._received:
            asker, message = self._received.popleft()
            room = max(0, FORWARDED_MAX - self._under_way)
            for number, command in message.proposals[:room]:
                self._under_way += 1
                self._intake.submit(command, partial(self._on_done, asker, number))
            for number, _ in message.proposals[room:]:
                self._answer(asker, (number,), ForwardOutcome.OVERLOADED, 0)
            if not message.reads:
                continue
            if self._under_way >= FORWARDED_MAX:
                self._answer(asker, message.reads, ForwardOutcome.OVERLOADED, 0)
                continue
            self._under_way += 1
            nursery.start_soon(self._read_for, asker, message.reads)

    def _on_done(self, asker: _Asker, number: int, answer: int | NotiError) -> None:
        index = 0
        match answer:
            case int():
                outcome, index = ForwardOutcome.DONE, answer
            case NotLeader():
                outcome = ForwardOutcome.NOT_LEADER
            case Overloaded():
                outcome = ForwardOutcome.OVERLOADED
            case _:
                outcome = ForwardOutcome.UNCERTAIN
        self._under_way -= 1
        self._answer(asker, (number,), outcome, index)

    async def _read_for(self, asker: _Asker, numbers: tuple[int, ...]) -> None:
        """Answer the reads of one message: what is committed after them all was for each."""
        outcome, index = ForwardOutcome.DONE, 0
        try:
            index = await self._replica.read_index()
        except NotLeader:
            outcome = ForwardOutcome.NOT_LEADER
        except ProposalUncertain:
            outcome = ForwardOutcome.UNCERTAIN
        finally:
            self._under_way -= 1
        self._answer(asker, numbers, outcome, index)

    def _answer(
        self, to: _Asker, numbers: Sequence[int], outcome: ForwardOutcome, index: int
    ) -> None:
        if self._askers.get(to.node_id) is to:
            to.answers += [(number, outcome, index) for number in numbers]
            self._answered[to] = None
            self._work.set()

    def _send_answers(self, messenger: Messenger) -> None:
        """Send what can be sent; the rest is tried again, as its askers wait for it."""
        for to in list(self._answered):
            while outcomes := tuple(to.answers[:ANSWERS_AT_ONCE]):
                if not messenger.send(to.node_id, ForwardAnswer(self._node_id, 0, outcomes)):
                    break
                del to.answers[: len(outcomes)]
                to.owed -= len(outcomes)
            else:
                del self._answered[to]

    def _send_unsent(self, messenger: Messenger) -> None:
        while self._unsent:
            leader, size_bytes = None, 0
            proposals: list[tuple[int, bytes]] = []
            reads: list[int] = []
            while self._unsent and len(proposals) + len(reads) < BATCH_REQUESTS_MAX:
                asked = self._outstanding.get(self._unsent[0])
                if asked is not None and leader not in (None, asked.leader):
                    break
                number = self._unsent.popleft()
                if asked is None:
                    continue
                leader = asked.leader
                if asked.command is None:
                    reads.append(number)
                    continue
                proposals.append((number, asked.command))
                size_bytes += len(asked.command)
                if size_bytes >= BATCH_BYTES_MAX:
                    break
            if leader is None:
                continue
            forward = Forward(self._node_id, 0, tuple(proposals), tuple(reads))
            if not messenger.send(leader, forward):
                # It was dropped right here, so nothing was done.
                for number in (*(number for number, _ in proposals), *reads):
                    self._resolve(number, ForwardOutcome.OVERLOADED)
