"""Spans are what OpenTelemetry makes of them: below their events, or linked to them."""

import json

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from noti.errors import ConfigInvalid
from noti.history.traceparent import context_of
from noti.tracing.open_telemetry import LINKS_MAX, OpenTelemetryTracer
from noti.tracing.ports import Step

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
ABOUT = {"messaging.message.id": "a"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_NAME", "RESOURCE_ATTRIBUTES", "TRACES_SAMPLER"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


class Traced:
    """A tracer, and what it has exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = OpenTelemetryTracer("node1", exporter=lambda: self.exporter)

    async def spans(self) -> list[ReadableSpan]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.tracer.run)
            nursery.cancel_scope.cancel()
        return list(self.exporter.get_finished_spans())


def ids(trace: str) -> tuple[int, int]:
    context = context_of(trace)
    assert context is not None
    return context.trace_id, context.span_id


async def test_event_is_below_its_publishers_span() -> None:
    traced = Traced()
    span = traced.tracer.begin(Step.RECEIVE, TRACE, ABOUT)
    assert span is not None
    span.end("Overloaded", {"noti.log_index": 7})
    [exported] = await traced.spans()
    assert exported.name == "noti receive"
    assert exported.parent is not None
    assert (exported.parent.trace_id, exported.parent.span_id) == ids(TRACE)
    assert (exported.context.trace_id, exported.context.span_id) == ids(span.trace)
    assert exported.attributes is not None
    assert dict(exported.attributes) == {**ABOUT, "noti.log_index": 7, "error.type": "Overloaded"}
    assert not exported.status.is_ok
    assert exported.resource.attributes["service.name"] == "noti"
    assert exported.resource.attributes["service.instance.id"] == "node1"


async def test_batch_of_one_event_is_below_it_and_of_several_linked_to_them() -> None:
    traced = Traced()
    for traces in ([TRACE], [TRACE, OTHER], [TRACE] * (LINKS_MAX + 1)):
        span = traced.tracer.begin_batch(Step.DELIVER, traces, {})
        assert span is not None
        span.end()
    single, several, many = await traced.spans()
    assert single.parent is not None
    assert not single.links
    assert (single.parent.trace_id, single.parent.span_id) == ids(TRACE)
    assert several.parent is None
    links = [(link.context.trace_id, link.context.span_id) for link in several.links]
    assert links == [ids(TRACE), ids(OTHER)]
    assert len(many.links) == LINKS_MAX


async def test_sampler_decides_about_events_without_a_trace_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = Traced().tracer.begin(Step.RECEIVE, "", ABOUT)
    assert begun is not None
    assert ids(begun.trace)[0] != ids(TRACE)[0]
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    traced = Traced()
    assert traced.tracer.begin(Step.RECEIVE, "", ABOUT) is None
    assert traced.tracer.begin(Step.RECEIVE, TRACE, ABOUT) is not None
    assert traced.tracer.begin_batch(Step.COMMIT, [TRACE, OTHER], {}) is not None


async def test_opentelemetrys_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "notifications")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    traced = Traced()
    span = traced.tracer.begin(Step.READ, "", ABOUT)
    assert span is not None
    span.end()
    [exported] = await traced.spans()
    attributes = json.loads(exported.resource.to_json())["attributes"]
    assert attributes["service.name"] == "notifications"
    assert attributes["deployment.environment.name"] == "test"


def test_protocol_that_is_not_spoken_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigInvalid, match="http/protobuf only"):
        Traced()
