"""Lets every node do what only the leader can: commit a command, read what is committed now.

Enters: commands and reads of this node; what other nodes forward to this one as their leader.
Leaves: one answer for each. Never: repeats something that may have been done already.

All that waits while a message is on its way to the leader goes with the next one.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import trio
from prometheus_client import Counter

from noti.errors import (
    NotLeader,
    PeerUnavailable,
    ProposalRefused,
    ProposalUncertain,
)
from noti.raft.messages import (
    Forward,
    ForwardAnswer,
    ForwardOutcome,
    Message,
    NodeId,
    PeerMessage,
)
from noti.raft.replica import Replica

FORWARDED_MAX = 4096
"""Requests of other nodes under way here; more are refused, and their publishers told to retry."""
BATCH_PROPOSALS_MAX = 512
BATCH_BYTES_MAX = 1024 * 1024
"""In one message: a heartbeat may have to wait behind it."""

_forwarded = Counter("noti_raft_forwarded_total", "Requests forwarded to the leader", ["outcome"])


class Messenger(Protocol):
    """The part of the peers that this room needs."""

    def send(self, to: NodeId, message: PeerMessage) -> None:
        """Queue a message, or drop it when there is no stream."""

    def connected(self) -> frozenset[NodeId]:
        """Return the peers with a stream."""


@dataclass(slots=True)
class _Asked:
    """A request of this node that a leader has, or is about to get."""

    leader: NodeId
    command: bytes | None
    """None for a read."""
    done: trio.Event = field(default_factory=trio.Event)
    outcome: ForwardOutcome = ForwardOutcome.UNCERTAIN
    index: int = 0


class Forwarder:
    """Stands between the peers and the replica, and takes the forwarded part of the traffic."""

    def __init__(self, node_id: NodeId, replica: Replica) -> None:
        """Prepare; nothing is forwarded before `run`."""
        self._node_id = node_id
        self._replica = replica
        self._messenger: Messenger | None = None
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._unsent: deque[int] = deque()
        self._given: deque[tuple[NodeId, Forward]] = deque()
        self._answers: dict[NodeId, list[tuple[int, ForwardOutcome, int]]] = {}
        self._under_way = 0
        self._work = trio.Event()

    # --- this node's requests ---------------------------------------------------------------------

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed, and applied on this node.

        Waits for a leader as long as there is none; the caller sets the deadline. Raises
        `ProposalRefused` or, when it may or may not have been committed, `ProposalUncertain`.
        """
        while True:
            try:
                if self._replica.is_ready_leader():
                    return await self._replica.propose(command)
                return await self._ask(command)
            except NotLeader:
                await self._replica.wait_advanced()

    async def read(self) -> None:
        """Return when everything committed before this call is applied on this node.

        Waits for a leader as long as there is none; the caller sets the deadline.
        """
        while True:
            try:
                if self._replica.is_ready_leader():
                    return await self._replica.wait_applied(await self._replica.read_index())
                return await self._ask(None)
            except (NotLeader, ProposalUncertain):
                # Reading changes nothing, so asking again is always safe.
                await self._replica.wait_advanced()

    async def _ask(self, command: bytes | None) -> None:
        leader = self._replica.status().leader
        messenger = self._messenger
        if leader is None or messenger is None or leader not in messenger.connected():
            raise NotLeader(leader)
        self._number += 1
        number = self._number
        asked = self._asked[number] = _Asked(leader, command)
        self._unsent.append(number)
        self._work.set()
        try:
            await asked.done.wait()
        finally:
            del self._asked[number]
        _forwarded.labels(asked.outcome.name.lower()).inc()
        match asked.outcome:
            case ForwardOutcome.DONE:
                await self._replica.wait_applied(asked.index)
            case ForwardOutcome.NOT_LEADER:
                raise NotLeader(None)
            case ForwardOutcome.REFUSED:
                raise ProposalRefused("the leader's backlog is full; retry later")
            case ForwardOutcome.UNCERTAIN:
                raise ProposalUncertain("the leader was lost while it had the command")

    # --- what peers say ---------------------------------------------------------------------------

    def peer_said(self, message: Message) -> None:
        """Pass on what is the core's."""
        self._replica.peer_said(message)

    def peer_connected(self, node_id: NodeId) -> None:
        """Pass on."""
        self._replica.peer_connected(node_id)

    def peer_lost(self, node_id: NodeId) -> None:
        """Nobody will answer what that peer was asked; pass on."""
        for asked in self._asked.values():
            if asked.leader == node_id:
                asked.done.set()
        self._answers.pop(node_id, None)
        self._replica.peer_lost(node_id)

    def peer_forwarded(self, message: Forward | ForwardAnswer) -> None:
        """Take in another node's requests, or its answers to ours; never waits."""
        if isinstance(message, Forward):
            self._given.append((message.sender, message))
            self._work.set()
            return
        for number, outcome, index in message.outcomes:
            asked = self._asked.get(number)
            if asked is not None and asked.leader == message.sender:
                asked.outcome, asked.index = outcome, index
                asked.done.set()

    # --- the task ---------------------------------------------------------------------------------

    async def run(
        self,
        messenger: Messenger,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Forward and answer until cancelled; who waits then is told that it is uncertain."""
        self._messenger = messenger
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await self._work.wait()
                    self._work = trio.Event()
                    self._begin_given(nursery)
                    self._send_unsent(messenger)
                    self._send_answers(messenger)
        finally:
            for asked in self._asked.values():
                asked.done.set()

    def _begin_given(self, nursery: trio.Nursery) -> None:
        while self._given:
            sender, message = self._given.popleft()
            for number, command in message.proposals:
                if self._under_way >= FORWARDED_MAX:
                    self._answer(sender, number, ForwardOutcome.REFUSED, 0)
                    continue
                self._under_way += 1
                nursery.start_soon(self._carry_out, sender, number, command)
            for number in message.reads:
                self._under_way += 1
                nursery.start_soon(self._carry_out, sender, number, None)

    async def _carry_out(self, sender: NodeId, number: int, command: bytes | None) -> None:
        outcome, index = ForwardOutcome.DONE, 0
        try:
            if command is None:
                index = await self._replica.read_index()
            else:
                await self._replica.propose(command)
                index = self._replica.status().applied_index
        except NotLeader:
            outcome = ForwardOutcome.NOT_LEADER
        except ProposalRefused:
            outcome = ForwardOutcome.REFUSED
        except (ProposalUncertain, PeerUnavailable):
            outcome = ForwardOutcome.UNCERTAIN
        finally:
            self._under_way -= 1
        self._answer(sender, number, outcome, index)

    def _answer(self, to: NodeId, number: int, outcome: ForwardOutcome, index: int) -> None:
        self._answers.setdefault(to, []).append((number, outcome, index))
        self._work.set()

    def _send_answers(self, messenger: Messenger) -> None:
        for to, outcomes in self._answers.items():
            messenger.send(to, ForwardAnswer(self._node_id, 0, tuple(outcomes)))
        self._answers.clear()

    def _send_unsent(self, messenger: Messenger) -> None:
        while self._unsent:
            leader, size_bytes = None, 0
            proposals: list[tuple[int, bytes]] = []
            reads: list[int] = []
            while self._unsent and len(proposals) < BATCH_PROPOSALS_MAX:
                asked = self._asked.get(self._unsent[0])
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
            if leader is not None:
                forward = Forward(self._node_id, 0, tuple(proposals), tuple(reads))
                messenger.send(leader, forward)
