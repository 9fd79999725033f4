"""Spans by OpenTelemetry's SDK: a `noti.tracing.ports.Tracer`.

Imported only where tracing is on, and after OpenTelemetry was found. What it is told by its own
environment variables it does: `OTEL_EXPORTER_OTLP_ENDPOINT` and its like, `OTEL_SERVICE_NAME`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` for events that come without a trace.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace import Tracer as SpanFactory

from noti import __version__
from noti.errors import ConfigInvalid
from noti.history.traceparent import TraceContext, context_of, text_of
from noti.optional import contained
from noti.tracing.exporting import SpanExporting
from noti.tracing.ports import NO_ATTRIBUTES, Attributes, Span, Step

_KINDS: Final = {
    Step.RECEIVE: SpanKind.SERVER,
    Step.READ: SpanKind.CONSUMER,
    Step.COMMIT: SpanKind.INTERNAL,
    Step.DELIVER: SpanKind.PRODUCER,
}

LINKS_MAX: Final = 128
"""Of one span, as OpenTelemetry's own limit."""

_PROTOCOL: Final = "http/protobuf"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class OpenTelemetryTracer:
    """Makes spans of one process, and has them exported while `run` runs."""

    def __init__(
        self, name: str, web_worker: int = 0, *, exporter: Callable[[], SpanExporter] | None = None
    ) -> None:
        """`name` is the node's; raises `ConfigInvalid` for what OpenTelemetry does not take.

        Without `exporter`, spans are sent by OTLP over HTTP.
        """
        protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), _PROTOCOL)
        if protocol != _PROTOCOL:
            raise ConfigInvalid(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, and noti sends spans by"
                f" {_PROTOCOL} only: set it to that, and the endpoint to the collector's port for"
                " it, 4318"
            )
        about = {
            "service.name": "noti",
            "service.version": __version__,
            "service.instance.id": f"{name}-{web_worker}" if web_worker else name,
        }
        try:
            told = OTELResourceDetector().detect().attributes
            resource = Resource.create({**about, **told})
            self._exporter = OTLPSpanExporter() if exporter is None else exporter()
            self._exporting = SpanExporting(self._export, self._exporter.shutdown)
            self._events = self._factory(resource, TracerProvider(shutdown_on_exit=False).sampler)
        except ValueError as error:
            raise ConfigInvalid(
                f"OpenTelemetry does not take its settings: {error}; look at the variables OTEL_…"
            ) from None
        # Whoever begins a batch has looked at its events: they are recorded.
        self._batches = self._factory(resource, ALWAYS_ON)

    def begin(self, step: Step, trace: str, attributes: Attributes) -> Span | None:
        """Begin a step of one event; see `Tracer`."""
        with contained("tracing"):
            span = self._events.start_span(
                step.value, _below(trace), kind=_KINDS[step], attributes=attributes
            )
            return _OpenSpan(span) if span.is_recording() else None
        return None

    def begin_batch(self, step: Step, traces: Sequence[str], attributes: Attributes) -> Span | None:
        """Begin a step of several events; see `Tracer`."""
        with contained("tracing"):
            single = len(traces) == 1
            links = [] if single else [_link(trace) for trace in traces[:LINKS_MAX]]
            span = self._batches.start_span(
                step.value,
                _below(traces[0]) if single else Context(),
                kind=_KINDS[step],
                attributes=attributes,
                links=links,
            )
            return _OpenSpan(span) if span.is_recording() else None
        return None

    async def run(self) -> None:
        """Export until cancelled; then what is left, for a short time."""
        await self._exporting.run()

    def _factory(self, resource: Resource, sampler: object) -> SpanFactory:
        provider = TracerProvider(sampler, resource=resource, shutdown_on_exit=False)  # type: ignore[arg-type]
        provider.add_span_processor(_Ended(self._exporting))
        return provider.get_tracer("noti", __version__)

    def _export(self, spans: Sequence[object]) -> bool:
        ended = [span for span in spans if isinstance(span, ReadableSpan)]
        return self._exporter.export(ended) is SpanExportResult.SUCCESS


class _Ended(SpanProcessor):
    """Takes spans as they end."""

    def __init__(self, exporting: SpanExporting) -> None:
        self._exporting = exporting

    def on_end(self, span: ReadableSpan) -> None:
        """Have it exported."""
        self._exporting.add(span)


class _OpenSpan:
    """A span as the rest of noti sees it."""

    def __init__(self, span: RecordedSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace = text_of(TraceContext(context.trace_id, context.span_id, context.trace_flags))

    def end(self, problem: str = "", attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Note that it is over; see `Span`."""
        with contained("tracing"):
            if attributes:
                self._span.set_attributes(attributes)
            if problem:
                self._span.set_attribute("error.type", problem)
                self._span.set_status(Status(StatusCode.ERROR, problem))
            self._span.end()


def _below(trace: str) -> Context:
    """Return where a span begins: in a trace, or in a new one without."""
    context = _span_context(trace)
    return Context() if context is None else set_span_in_context(NonRecordingSpan(context))


def _link(trace: str) -> Link:
    context = _span_context(trace)
    assert context is not None, "an event carries a trace that is one"
    return Link(context)


def _span_context(trace: str) -> SpanContext | None:
    found = context_of(trace)
    if found is None:
        return None
    flags = TraceFlags(found.flags)
    return SpanContext(found.trace_id, found.span_id, is_remote=True, trace_flags=flags)
