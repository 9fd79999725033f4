"""A tracer that keeps what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from noti.tracing.ports import NO_ATTRIBUTES, Attributes, Step


@dataclass
class RecordedSpan:
    step: Step
    trace: str
    parents: list[str]
    """Or what it is linked to, of a batch."""
    attributes: dict[str, str | int]
    problem: str | None = None
    """None while it goes on."""

    def end(self, problem: str = "", attributes: Attributes = NO_ATTRIBUTES) -> None:
        assert self.problem is None, "a span ends once"
        self.problem = problem
        self.attributes |= attributes


@dataclass
class RecordingTracer:
    """Records the events whose id is in `wanted`, or all that have a trace."""

    wanted: set[str] = field(default_factory=set)
    spans: list[RecordedSpan] = field(default_factory=list)

    def begin(self, step: Step, trace: str, attributes: Attributes) -> RecordedSpan | None:
        if not trace and attributes["messaging.message.id"] not in self.wanted:
            return None
        return self._add(step, [trace] if trace else [], attributes)

    def begin_batch(
        self, step: Step, traces: Sequence[str], attributes: Attributes
    ) -> RecordedSpan:
        return self._add(step, list(traces), attributes)

    def of(self, step: Step) -> list[RecordedSpan]:
        return [span for span in self.spans if span.step is step]

    def _add(self, step: Step, parents: list[str], attributes: Attributes) -> RecordedSpan:
        trace = f"00-{1:032x}-{len(self.spans) + 1:016x}-01"
        self.spans.append(RecordedSpan(step, trace, parents, dict(attributes)))
        return self.spans[-1]
