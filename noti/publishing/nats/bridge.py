"""Reads one stream while this node leads: session after session, each from the store's floor.

Any failure drops the session, and the next one starts again from the floor. What was committed
without an ack comes again and is dropped by the store. What happens inside of a session is in
`noti.publishing.nats.reading`.
"""

import random
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

from noti.backoff import Backoff
from noti.errors import (
    NotLeader,
    Overloaded,
    ProposalUncertain,
    SourceUnavailable,
    Unavailable,
    leaves_of,
)
from noti.optional import FAILURES
from noti.ports import Clock
from noti.publishing.nats.metrics import Gauges, State
from noti.publishing.nats.outcomes import Outcomes
from noti.publishing.nats.ports import Source
from noti.publishing.nats.reading import MESSAGES_MAX, EventOf, SessionReading
from noti.publishing.ports import Proposer
from noti.tracing.taking import TakenTraces

log = structlog.get_logger("noti.publishing")

NO_SOURCE: Final = "no source of events: nats_url is not set; events come by HTTP and gRPC only"
"""What a node without one says of it."""

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
"""Waits between attempts double from the first to the last, each drawn from its upper half."""


class Bridge:
    """Reads a stream while this node leads."""

    def __init__(
        self,
        name: str,
        source: Source,
        event_of: EventOf,
        proposer: Proposer,
        floor: Callable[[str], int],
        clock: Clock,
        rng: random.Random,
        *,
        traces: TakenTraces | None = None,
        messages_max: int = MESSAGES_MAX,
    ) -> None:
        """Prepare to read the stream called `name`.

        `floor` returns the store's floor for a stream identity, on this node, now.
        """
        self._name = name
        self._source = source
        self._event_of = event_of
        self._proposer = proposer
        self._floor = floor
        self._clock = clock
        self._rng = rng
        self._traces = traces
        self._messages_max = messages_max
        self._gauges = Gauges(name, clock)
        self._outcomes = Outcomes(name, clock)
        self._stream: str | None = None
        self._backoff = Backoff(rng, first_s=BACKOFF_FIRST_S, most_s=BACKOFF_MAX_S)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bridge until cancelled; started at once, whether or not the source can be reached.

        An unreachable source never ends this: it is retried, and `status` says why.
        *Cancellation*, and the loss of leadership, stop between any two steps without an ack.
        """
        task_status.started()
        while True:
            if not self._proposer.is_ready_leader():
                self._enter("standby")
                await self._proposer.wait_leadership_changed()
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._lead)
                # Also when it is lost and won again at once: the new term starts from its floor.
                await self._proposer.wait_leadership_changed()
                nursery.cancel_scope.cancel()

    def failed(self, problem: str) -> None:
        """Note that `run` ended by an error that nobody foresaw, and will be run again."""
        self._enter("failed", problem)

    def status(self) -> dict[str, object]:
        """Return what `/status` shows: state, last error, since when, stream identity, counts."""
        return {
            "name": self._name,
            **self._gauges.status(),
            "stream": self._stream,
            "dead_letters": self._outcomes.dead_letter_count,
            "published": self._outcomes.committed_count,
        }

    def _enter(self, state: State, error: str | None = None) -> None:
        self._gauges.enter(state, error)

    async def _lead(self) -> None:
        """Open session after session until cancelled."""
        self._backoff.succeeded()
        logged = ""
        while True:
            started = self._clock.now()
            failure = await self._use_session()
            if self._clock.now() - started > BACKOFF_MAX_S:
                # It worked for a while: this is a new trouble, not the old one going on.
                self._backoff.succeeded()
            pause_s = self._backoff.failed()
            failures = self._backoff.failures
            self._enter("waiting", str(failure))
            if failures == 1 or str(failure) != logged:  # an outage may take days
                log.warning(
                    "reading stopped", source=self._name, error=str(failure), failures=failures
                )
            logged = str(failure)
            if isinstance(failure, SourceUnavailable):
                FAILURES.labels("source").inc()
            if isinstance(failure, ProposalUncertain) and failures == 1:
                continue
            await self._clock.sleep_until(self._clock.now() + pause_s)

    async def _use_session(self) -> Unavailable:
        """Read until something fails, and return what."""
        failure: BaseException | None = None
        try:
            self._enter("connecting", self._gauges.error)
            async with self._source.open() as session:
                self._stream = session.stream
                await session.begin(self._floor(session.stream))
                self._enter("reading")
                log.info("reading events", stream=session.stream)
                reading = SessionReading(
                    session,
                    self._event_of,
                    self._proposer,
                    self._outcomes,
                    self._clock,
                    self._rng,
                    committed=self._backoff.succeeded,
                    traces=self._traces,
                    messages_max=self._messages_max,
                )
                with self._gauges.reading(session):
                    await reading.run()
        except* (SourceUnavailable, NotLeader, Overloaded, ProposalUncertain) as group:
            failure = leaves_of(group)[0]
        assert isinstance(failure, Unavailable), "reading ends only by an error"
        return failure


def source_status(bridges: Mapping[str, Bridge]) -> dict[str, object]:
    """Return what `/status` shows of the source: the first stream in trouble, and all of them.

    `bridges` are by the name of the stream.
    """
    streams = [bridge.status() for bridge in bridges.values()]
    if not streams:
        return {"state": "none", "text": NO_SOURCE}
    first = next((stream for stream in streams if stream["error"] is not None), streams[0])
    return {**first, "streams": streams}
