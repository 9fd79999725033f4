"""What the rooms through which events pass see of tracing."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

Attributes: TypeAlias = Mapping[str, str | int]
"""What is said of a span, by OpenTelemetry's names where it has one (semantic conventions for
messaging)."""

NO_ATTRIBUTES: Attributes = {}


class Step(Enum):
    """A part of an event's way, and the name of its span."""

    RECEIVE = "noti receive"
    """From a publisher's request to its answer; one for each event."""
    READ = "noti read"
    """From the reading of a message of JetStream to its commit; one for each event."""
    COMMIT = "noti commit"
    """From the proposal of a batch until it is committed, and applied here."""
    DELIVER = "noti deliver"
    """From a batch's being applied at a node to the end of the pass that sent it to streams."""


class Span(Protocol):
    """A step that goes on, and is recorded."""

    @property
    def trace(self) -> str:
        """What others name it by, as `traceparent` has it."""

    def end(self, problem: str = "", attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Note that it is over, and why it failed; once. Never waits, never raises."""


class Tracer(Protocol):
    """Whoever records spans."""

    def begin(self, step: Step, trace: str, attributes: Attributes) -> Span | None:
        """Begin a step of one event, in the trace that it belongs to, or in a new one.

        None when nobody wants to know of it. Never waits, never raises.
        """

    def begin_batch(self, step: Step, traces: Sequence[str], attributes: Attributes) -> Span | None:
        """Begin a step of several events that are recorded; their spans are linked to it.

        A single one is its parent instead. Never waits, never raises.
        """
