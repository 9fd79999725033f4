"""Takes events from publishers on any node, and has the leader commit them.

Each submission is answered once, nothing is tried a second time that may have been committed
already, and what waits is bounded.

Submissions of one turn of the scheduler travel in one command, and so does whatever came while the
last commands were under way. A second command leaves beside the first once it is as large: so a
lonely publisher waits for nobody, and many fall into two groups that share two entries of the log.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import trio
from prometheus_client import Counter

from noti.completion import Completion, OnDone
from noti.errors import (
    IdempotencyKeyReused,
    MessageInvalid,
    NotiError,
    NotLeader,
    Overloaded,
    ProposalUncertain,
    Unavailable,
)
from noti.history.commands import Publish, encode
from noti.history.notification import Event, byte_length
from noti.ports import Clock
from noti.publishing.events import event_of
from noti.publishing.ports import CommandForwarder, Draft, Outcome
from noti.tracing.ports import Span, Step
from noti.tracing.taking import TakenTraces, end_all

log = structlog.get_logger("noti.publishing")

EVENTS = Counter("noti_publish_events_total", "Events that publishers had committed")
REJECTED = Counter("noti_publish_rejected_total", "Submissions that failed", ["reason"])
for _reason in (
    *(MessageInvalid, IdempotencyKeyReused, NotLeader),
    *(Overloaded, ProposalUncertain, Unavailable),
):
    REJECTED.labels(_reason.__name__)  # from zero, as alerts see only what grows


@dataclass(frozen=True)
class PublishLimits:
    """What one node takes from its publishers."""

    submission_events_max: int = 1000
    """Events in one submission: as many as history keeps, and less than a command of them takes."""
    submission_bytes_max: int = 4 * 1024 * 1024
    """All data and topics of one submission: gRPC's customary limit of a message, and half of what
    an entry of the log may hold."""
    waiting_bytes_max: int = 32 * 1024 * 1024
    """Events that are not committed yet, all submissions together: half of the leader's own
    backlog, so that one node's publishers cannot fill it alone."""
    waiting_events_max: int = 65_536
    """The same in events: small ones cost more than their bytes."""
    command_events_max: int = 1000
    command_bytes_max: int = 1024 * 1024
    """A command is closed at either: a larger one would not make a commit cheaper, and followers
    would get it later."""
    commands_under_way_max: int = 2
    """Commands of this node that are not committed yet. With one, an event waits for the last
    command and then for its own; more make each smaller (4 cost a quarter more CPU an event)."""
    leader_wait_s: float = 5.0
    """How long to wait for a leader: an election with the default timeouts takes 0.1 to 2 s. And
    for its turn, when events are committed more slowly than they come: then they are rejected."""
    commit_within_s: float = 10.0
    """After this nobody believes in an answer: a leader without a majority has resigned long ago,
    and a dead one was noticed."""


EVENT_OVERHEAD_BYTES = 100
"""What an event takes in memory and log beside its data and topics: id, time, framing."""


@dataclass(slots=True, eq=False)
class _Submission:
    events: tuple[Event, ...]
    size_bytes: int
    at: float
    on_done: OnDone[tuple[str, ...]]
    keyed: Sequence[Draft]
    """What the events were made of, if any of them has an idempotency key."""
    spans: Sequence[Span]
    """Of those that are traced."""


@dataclass(slots=True, eq=False)
class _Command:
    """Submissions that travel together."""

    batch: Sequence[_Submission]
    encoded: bytes
    events: int
    span: Span | None
    leaderless_until: float
    """No leader is waited for after this."""
    overdue_at: float = math.inf
    """When nobody believes in an answer any more."""


class Publisher:
    """The way in of one node; a `noti.publishing.ports.Publishing`."""

    def __init__(
        self,
        log: CommandForwarder,
        clock: Clock,
        rng: random.Random,
        limits: PublishLimits = PublishLimits(),
        *,
        id_of: Callable[[Event], str | None],
        traces: TakenTraces | None = None,
    ) -> None:
        """Prepare; submissions are rejected before `run` and after it.

        `id_of` is asked about an event with an idempotency key once it is applied on this node, and
        returns the id under which it is known; None when its key stood for something else.
        """
        self._id_of = id_of
        self._traces = traces or TakenTraces()
        self._log = log
        self._clock = clock
        self._rng = rng
        self._limits = limits
        self._waiting: deque[_Submission] = deque()
        self._uncommitted_events = 0
        self._uncommitted_bytes = 0
        self._under_way: list[_Command] = []
        self._events_under_way = 0
        self._leaderless = trio.Event()
        """A command found no leader."""
        self._work = trio.Event()
        self._running = False

    def submit(
        self, drafts: Sequence[Draft], on_done: OnDone[tuple[str, ...]], *, at_once: bool = False
    ) -> None:
        """Have events committed, in the order of the calls; never waits. See `Publishing`."""
        now = self._clock.now()
        try:
            submission = self._take(drafts, on_done, now)
        except NotiError as error:
            REJECTED.labels(type(error).__name__).inc()
            self._traces.refused([draft.id for draft in drafts], str(error))
            on_done(error)
            return
        self._uncommitted_events += len(submission.events)
        self._uncommitted_bytes += submission.size_bytes
        self._waiting.append(submission)
        if at_once and not self._under_way:
            self._send_commands(now)
        else:
            self._work.set()  # the others that come in this turn shall be in the same command

    async def publish(self, drafts: Sequence[Draft]) -> tuple[str, ...]:
        """Return the ids once all of the events are committed, and applied on this node.

        Raises what `submit` completes with. *Cancellation*: they may be committed all the same.
        """
        completion: Completion[tuple[str, ...]] = Completion()
        self.submit(drafts, completion)
        return await completion.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass events on until cancelled; what waits then is answered."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._submit_later)
                self._running = True
                task_status.started()
                await self._keep_going()
        finally:
            self._running = False
            while self._under_way:
                nobody_has_it = self._under_way[0].overdue_at == math.inf
                uncertain = ProposalUncertain("this node stopped meanwhile")
                self._end(self._under_way[0], _stopping() if nobody_has_it else uncertain)
            while self._waiting:
                self._finish([self._waiting.popleft()], _stopping())

    async def _keep_going(self) -> None:
        while True:
            self._work = trio.Event()
            now = self._clock.now()
            self._give_up_overdue(now)
            self._send_commands(now)
            self._reject_late(now)
            look_at = now + self._limits.commit_within_s
            look_at = min([look_at, *(one.overdue_at for one in self._under_way)])
            if self._waiting:
                look_at = min(look_at, self._waiting[0].at + self._limits.leader_wait_s)
            with self._clock.scope_until(look_at):
                await self._work.wait()

    # --- in ---------------------------------------------------------------------------------------

    def _take(
        self, drafts: Sequence[Draft], on_done: OnDone[tuple[str, ...]], now: float
    ) -> _Submission:
        limits = self._limits
        if not self._running:
            raise Unavailable("this node does not take events now; ask another one")
        if not 0 < len(drafts) <= limits.submission_events_max:
            raise MessageInvalid(
                f"a batch of {len(drafts)} events; 1 to {limits.submission_events_max} are allowed"
            )
        wall_ms = self._clock.wall_ms()
        events = tuple([event_of(draft, wall_ms=wall_ms, rng=self._rng) for draft in drafts])
        size_bytes = EVENT_OVERHEAD_BYTES * len(events)
        for event in events:
            size_bytes += byte_length(event.data) + sum(map(len, event.topics))
        if len(events) > 1 and size_bytes > limits.submission_bytes_max:
            raise MessageInvalid(
                f"a batch of {size_bytes} bytes; {limits.submission_bytes_max} are allowed"
            )
        if (
            self._uncommitted_events + len(events) > limits.waiting_events_max
            or self._uncommitted_bytes + size_bytes > limits.waiting_bytes_max
        ):
            raise Overloaded(
                "too many events wait to be committed on this node; retry later, or more slowly"
            )
        keyed = drafts if any(draft.idempotency_key for draft in drafts) else ()
        events, spans = self._traces.take(events, Step.RECEIVE)
        return _Submission(events, size_bytes, now, on_done, keyed, spans)

    # --- on its way -------------------------------------------------------------------------------

    def _send_commands(self, now: float) -> None:
        """Let go what may go: a second command only when it is as large as the first."""
        while (
            self._running
            and self._waiting
            and len(self._under_way) < self._limits.commands_under_way_max
            and self._uncommitted_events >= 2 * self._events_under_way
        ):
            batch = self._next_batch()
            events = tuple([event for one in batch for event in one.events])
            leaderless_until = batch[0].at + self._limits.leader_wait_s
            encoded = encode(Publish(events, self._clock.wall_ms()))
            spans = [span for one in batch for span in one.spans]
            span = self._traces.commit(spans, len(events))
            command = _Command(batch, encoded, len(events), span, leaderless_until)
            self._under_way.append(command)
            self._events_under_way += command.events
            self._submit_all(now)

    def _next_batch(self) -> list[_Submission]:
        batch = [self._waiting.popleft()]
        events, size_bytes = len(batch[0].events), batch[0].size_bytes
        while self._waiting:
            events += len(self._waiting[0].events)
            size_bytes += self._waiting[0].size_bytes
            limits = self._limits
            if events > limits.command_events_max or size_bytes > limits.command_bytes_max:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _submit_all(self, now: float) -> None:
        """Submit what no leader has, in the order of the calls; wait with the rest for a leader."""
        for command in list(self._under_way):
            if command.overdue_at == math.inf:
                command.overdue_at = now + self._limits.commit_within_s
                self._log.submit(command.encoded, partial(self._on_done, command))
                if command.overdue_at == math.inf:
                    return

    def _on_done(self, command: _Command, answer: int | NotiError) -> None:
        if command not in self._under_way:
            return  # everybody was answered that it is uncertain
        if not isinstance(answer, NotLeader):
            if command.span is not None and not isinstance(answer, NotiError):
                command.span.end(attributes={"noti.log_index": answer})
                command.span = None
            self._end(command, answer if isinstance(answer, NotiError) else None)
        elif not self._running:
            self._end(command, _stopping())
        else:
            command.overdue_at = math.inf  # nothing was done
            self._leaderless.set()

    async def _submit_later(self) -> None:
        """Submit what found no leader when there is one, or fail it when it waited for too long.

        One task for all of them: a command must not overtake another.
        """
        while True:
            await self._leaderless.wait()
            self._leaderless = trio.Event()
            while waiting := [one for one in self._under_way if one.overdue_at == math.inf]:
                until = min(command.leaderless_until for command in waiting)
                with self._clock.scope_until(until):
                    await self._log.wait_news()
                now = self._clock.now()
                # First, as a log that answers later (of a web worker) would be asked without end.
                for command in waiting:
                    late = command.leaderless_until <= now
                    if late and command.overdue_at == math.inf and command in self._under_way:
                        self._end(command, _no_leader())
                self._submit_all(now)

    def _give_up_overdue(self, now: float) -> None:
        for command in [one for one in self._under_way if one.overdue_at <= now]:
            self._end(
                command,
                ProposalUncertain("no answer; the events may or may not be committed"),
            )

    def _reject_late(self, now: float) -> None:
        """Reject what has waited for its turn too long: nothing was done."""
        before = now - self._limits.leader_wait_s
        while self._waiting and self._waiting[0].at <= before:
            leaderless = any(one.overdue_at == math.inf for one in self._under_way)
            late = Overloaded("events are taken more slowly now; retry later, or more slowly")
            self._finish([self._waiting.popleft()], _no_leader() if leaderless else late)

    def _end(self, command: _Command, failure: NotiError | None) -> None:
        """Answer everybody, and let the next ones go, here and now."""
        self._under_way.remove(command)
        self._events_under_way -= command.events
        if command.span is not None:
            command.span.end(type(failure).__name__)
        self._finish(command.batch, failure)
        if self._waiting:
            self._send_commands(self._clock.now())

    def _finish(self, batch: Sequence[_Submission], failure: NotiError | None) -> None:
        committed = 0
        for submission in batch:
            self._uncommitted_events -= len(submission.events)
            self._uncommitted_bytes -= submission.size_bytes
            end_all(submission.spans, "" if failure is None else type(failure).__name__)
            if failure is None:
                committed += len(submission.events)
                submission.on_done(self._answer(submission))
            else:
                REJECTED.labels(type(failure).__name__).inc()
                self._traces.refused([event.id for event in submission.events], str(failure))
                submission.on_done(failure)
        if committed:
            EVENTS.inc(committed)

    def _answer(self, submission: _Submission) -> Outcome:
        """Return the ids of events that are applied; asked at once, while all keys are known."""
        events = submission.events
        if not submission.keyed:
            return tuple([event.id for event in events])
        ids = [
            self._known_id(draft, event) if event.idempotency_key else event.id
            for draft, event in zip(submission.keyed, events, strict=True)
        ]
        known = tuple([one for one in ids if one is not None])
        if len(known) == len(ids):
            return known
        REJECTED.labels(IdempotencyKeyReused.__name__).inc()
        return IdempotencyKeyReused(ids)

    def _known_id(self, draft: Draft, event: Event) -> str | None:
        """Return the id that a keyed event has in history; None if its key is another event's."""
        known = self._id_of(event)
        return known if draft.id is None or draft.id == known else None


def _no_leader() -> Unavailable:
    return Unavailable("the cluster has no leader; retry later")


def _stopping() -> Unavailable:
    return Unavailable("this node is stopping; ask another one")
