"""What the ways in of a process do so that the events that they take can be followed.

An event carries on its way the span in which it was taken, so that what other nodes do with it is
seen below that. A node that does not trace passes on what the publisher said.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Final

from noti.history.notification import Event
from noti.tracing.ports import Attributes, Span, Step, Tracer
from noti.tracing.refusals import Refusals

_TRACE: Final = attrgetter("trace")


class TakenTraces:
    """The traces of events that one process takes."""

    def __init__(
        self,
        tracer: Tracer | None = None,
        kept: Callable[[], bool] = lambda: True,
        refusals: Refusals | None = None,
    ) -> None:
        """`kept` says whether the log may hold traces: not while a node is older than they are."""
        self._tracer = tracer
        self._kept = kept
        self._refusals = refusals

    def refused(self, ids: Iterable[str | None], reason: str) -> None:
        """Note that events with these ids did not become events; None for one without an id."""
        if self._refusals is not None:
            self._refusals.note(filter(None, ids), reason)

    def take(
        self, events: tuple[Event, ...], step: Step
    ) -> tuple[tuple[Event, ...], Sequence[Span]]:
        """Return the events with the traces that they shall carry, and the spans that begin."""
        tracer = self._tracer
        if tracer is None:
            if not any(map(_TRACE, events)) or self._kept():
                return events, ()
            return tuple([event._replace(trace="") for event in events]), ()
        spans, traced, kept = [], [], self._kept()
        for event in events:
            about = {
                "messaging.system": "noti",
                "messaging.message.id": event.id,
                "messaging.destination.name": event.topics[0],
            }
            span = tracer.begin(step, event.trace, about)
            if span is not None:
                spans.append(span)
            traced.append(event._replace(trace=span.trace if span is not None and kept else ""))
        return tuple(traced), spans

    def commit(self, spans: Sequence[Span], events: int) -> Span | None:
        """Begin the commit of a batch of so many events, of which these are traced."""
        if self._tracer is None or not spans:
            return None
        about: Attributes = {"messaging.system": "noti", "messaging.batch.message_count": events}
        return self._tracer.begin_batch(Step.COMMIT, [span.trace for span in spans], about)


def end_all(spans: Sequence[Span], problem: str = "") -> None:
    """End spans that end together."""
    for span in spans:
        span.end(problem)
