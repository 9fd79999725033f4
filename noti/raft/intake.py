"""Holds events back while browsers cannot follow: the door to the leader's log.

All that is published passes it, local or forwarded.

Commands reach the replica as fast as `pacing.py` says, in the order in which they came. What the
node itself proposes (limits, members) is never held: it goes to the replica directly.

What is held was not appended. So it is rejected when its time is over, and a leader that is one no
more passes it all on to the core, which answers that somebody else leads: nobody is left in doubt.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio
from prometheus_client import Counter, Gauge

from noti.completion import Completion, OnDone
from noti.errors import NotLeader, Overloaded
from noti.ports import Clock
from noti.raft.core.messages import AppendAccepted, Message, NodeId
from noti.raft.core.pacing import EASY, Pacing, pressure_of
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX
from noti.raft.replica import Replica
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.raft")

HELD_S_MAX: Final = 5.0
"""How long a publisher's command waits here: half of the time in which its node believes in an
answer, so that the other half is left for the commit."""
HELD_BYTES_MAX: Final = 32 * 1024 * 1024
"""What waits here at most, all nodes together: half of what may be uncommitted. Nodes have two
commands of a mebibyte under way each, as a rule."""
LOOK_EVERY_S: Final = 0.05
"""While something waits: this node's own pressure changes without a message."""
LOOK_WHEN_IDLE_S: Final = 1.0
"""So that what is shown of the nodes is of now."""

_pressure = Gauge(
    "noti_pacing_pressure",
    "How full each node's backlog of clients that read is, as the leader sees it",
    ["node"],
)
_held = Gauge("noti_pacing_held", "Commands that wait until browsers can follow")
_held_s = Counter(
    "noti_pacing_held_seconds_total", "Time that commands waited until browsers followed"
)
_rejected = Counter(
    "noti_pacing_rejected_total", "Commands rejected, as browsers did not follow in time"
)
_disregarded = Counter(
    "noti_pacing_disregarded_total", "Times that a node had held the others back for long enough"
)


@dataclass(slots=True, eq=False)
class _Held:
    """A command that waits."""

    command: bytes
    on_done: OnDone[int]
    since: float
    until: float


class Intake:
    """The leader's door; on other nodes it is open, as they forward to the leader."""

    def __init__(
        self,
        node_id: NodeId,
        replica: Replica,
        pacing: Pacing,
        clock: Clock,
        report: Callable[[], int] = lambda: 0,
        name_of: Callable[[NodeId], str | None] = lambda _: None,
    ) -> None:
        """`report` returns how full this node is, see `pacing.report_of`; it is asked often."""
        self._node_id = node_id
        self._replica = replica
        self._pacing = pacing
        self._clock = clock
        self._report = report
        self._name_of = name_of
        self._queue: deque[_Held] = deque()
        self._queue_bytes = 0
        self._throttled = ThrottledLog(clock.now)
        self._work = trio.Event()

    # --- commands ---------------------------------------------------------------------------------

    def is_ready_leader(self) -> bool:
        """Whether this node leads and has applied everything of its predecessors."""
        return self._replica.is_ready_leader()

    async def wait_leadership_changed(self) -> None:
        """Return at the next change of `is_ready_leader()`."""
        await self._replica.wait_leadership_changed()

    def change(self, pacing_s: float) -> None:
        """Let a node alone hold the others back for so long from now on."""
        self._pacing.pacing_s = pacing_s

    def submit(
        self,
        command: bytes,
        on_done: OnDone[int],
        *,
        at_once: bool = False,
        within_s: float = HELD_S_MAX,
    ) -> None:
        """Propose, in the order of the calls, as soon as browsers can follow; see `Replica.submit`.

        `on_done` gets `Overloaded` for what could not go within `within_s`, or had no room.
        """
        now = self._clock.now()
        if not self._queue and self._may_pass(now):
            self._pacing.passed(len(command), now)
            self._replica.submit(command, on_done, at_once=at_once)
        elif len(command) > ENTRY_DATA_BYTES_MAX:
            self._replica.submit(command, on_done)  # it answers so, and at once
        elif self._queue_bytes + len(command) > HELD_BYTES_MAX:
            self._reject(on_done)
        else:
            self._queue.append(_Held(command, on_done, now, now + within_s))
            self._queue_bytes += len(command)
            _held.set(len(self._queue))
            self._work.set()

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed and applied on this node.

        Raises what `Replica.propose` does.

        Waits until browsers can follow, for as long as that takes. Cancelled while it is held here,
        it was not proposed; afterwards it may still be committed.
        """
        completion: Completion[int] = Completion()
        self.submit(command, completion, within_s=math.inf)
        held = self._queue[-1] if self._queue and self._queue[-1].command is command else None
        try:
            await completion.wait()
        finally:
            if held is not None and held in self._queue:
                self._remove(held)

    def _may_pass(self, now: float) -> bool:
        """Whether a command may go now, as far as is known; cheap while nobody is pressed."""
        own = self._report()
        if own > EASY or not self._pacing.at_ease:
            if not self._replica.is_leader():
                return True  # the core answers that
            self._pacing.reported(self._node_id, own, now)
        return self._pacing.at_ease or self._pacing.may_pass(now)

    def _reject(self, on_done: OnDone[int]) -> None:
        _rejected.inc()
        on_done(Overloaded("browsers cannot follow; retry later, or publish more slowly"))

    # --- reports ----------------------------------------------------------------------------------

    def messages_received(self, messages: Sequence[Message]) -> None:
        """Note how full followers are."""
        for message in messages:
            if type(message) is AppendAccepted:
                self._pacing.reported(message.sender, message.backlog, self._clock.now())
        if self._queue:
            self._work.set()

    def peer_lost(self, node_id: NodeId) -> None:
        """Note that a node is disconnected."""
        self._pacing.lost(node_id, self._clock.now())
        self._work.set()

    def status(self) -> dict[str, object]:
        """Return what `/status` shows of the intake."""
        now = self._clock.now()
        return {
            "held": len(self._queue),
            "disregarded": sorted(self._name(n) for n in self._pacing.disregarded(now)),
        }

    def pressures(self) -> Mapping[NodeId, float]:
        """Return how full each node is; empty on a node that does not lead."""
        if not self._replica.is_leader():
            return {}
        own = {self._node_id: pressure_of(self._report())}
        return {**self._pacing.pressures(self._clock.now()), **own}

    def _name(self, node_id: NodeId) -> str:
        return self._name_of(node_id) or node_id

    # --- the task ---------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let through what is held, until cancelled; what is held then is nobody's."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_leadership)
                task_status.started()
                while True:
                    self._work = trio.Event()
                    look_at = self._look()
                    with self._clock.scope_until(look_at):
                        await self._work.wait()
        finally:
            while self._queue:
                held = self._queue[0]
                self._remove(held)
                held.on_done(NotLeader(None))

    async def _watch_leadership(self) -> None:
        while True:
            await self._replica.wait_leadership_changed()
            self._work.set()

    def _look(self) -> float:
        """Let go what may go, and return when to look again."""
        now = self._clock.now()
        if self._replica.is_leader():
            self._pacing.reported(self._node_id, self._report(), now)
            for node_id in self._pacing.look(now, holding=bool(self._queue)):
                self._log_disregarded(node_id, now)
            for node_id, pressure in self._pacing.pressures(now).items():
                _pressure.labels(self._name(node_id)).set(pressure)
        else:
            self._pacing.clear()
            _pressure.clear()
        while self._queue and self._may_pass(now):
            held = self._queue[0]
            self._remove(held)
            _held_s.inc(now - held.since)
            self._pacing.passed(len(held.command), now)
            self._replica.submit(held.command, held.on_done)
        for held in [held for held in self._queue if held.until <= now]:
            self._remove(held)
            _held_s.inc(now - held.since)
            self._reject(held.on_done)
        _held.set(len(self._queue))
        if not self._queue:
            return now + LOOK_WHEN_IDLE_S
        self._log_held(now)
        due_at = min(self._pacing.due_at(now), *(held.until for held in self._queue))
        return min(due_at, now + LOOK_EVERY_S)

    def _remove(self, held: _Held) -> None:
        self._queue.remove(held)
        self._queue_bytes -= len(held.command)

    def _log_held(self, now: float) -> None:
        pressures = self._pacing.pressures(now)
        fullest = max(pressures, key=pressures.__getitem__, default=self._node_id)
        self._throttled.log(
            log.info,
            "publishers are slowed down, as browsers cannot follow",
            slowest=self._name(fullest),
            pressure=round(pressures.get(fullest, 0.0), 3),
        )

    def _log_disregarded(self, node_id: NodeId, now: float) -> None:
        _disregarded.inc()
        log.warning(
            "browsers of one node cannot follow, and held the others back for long enough: "
            "it is not waited for, and sheds them",
            node=self._name(node_id),
            seconds=round(self._pacing.penalty_s(node_id, now)),
        )
