"""Events carry the trace that others find them by, and others than traced ones carry none."""

from noti.history.notification import Event
from noti.tracing.ports import Step
from noti.tracing.taking import TakenTraces, end_all
from tests.tracing.recorder import RecordingTracer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PLAIN = Event(0, "plain", ("t",), "d", 5)
TRACED = Event(0, "traced", ("t",), "d", 5, trace=TRACE)


def test_without_a_tracer_events_keep_what_their_publisher_said() -> None:
    events = (PLAIN, TRACED)
    assert TakenTraces().take(events, Step.RECEIVE) == (events, ())
    assert TakenTraces().commit((), 2) is None


def test_before_all_nodes_know_traces_none_is_kept() -> None:
    plain = TRACED._replace(trace="")
    assert TakenTraces(None, lambda: False).take((PLAIN, TRACED), Step.READ) == ((PLAIN, plain), ())
    tracer = RecordingTracer()
    events, spans = TakenTraces(tracer, lambda: False).take((TRACED,), Step.READ)
    assert events == (plain,)
    assert [span.trace for span in spans] == [tracer.spans[0].trace], (
        "this node records all the same"
    )


def test_event_carries_the_span_in_which_it_was_taken() -> None:
    tracer = RecordingTracer(wanted={"begun here"})
    begun = PLAIN._replace(id="begun here")
    events, spans = TakenTraces(tracer).take((PLAIN, TRACED, begun), Step.RECEIVE)
    assert [event.trace for event in events] == ["", spans[0].trace, spans[1].trace]
    assert [span.parents for span in tracer.spans] == [[TRACE], []]
    assert tracer.spans[0].attributes["messaging.message.id"] == "traced"


def test_commit_is_linked_to_all_traced_events_of_the_batch() -> None:
    tracer = RecordingTracer()
    traces = TakenTraces(tracer)
    _, spans = traces.take((PLAIN, TRACED, TRACED), Step.RECEIVE)
    commit = traces.commit(spans, 3)
    assert commit is not None
    assert tracer.of(Step.COMMIT)[0].parents == [span.trace for span in spans]
    end_all(spans, "Overloaded")
    assert [span.problem for span in tracer.of(Step.RECEIVE)] == ["Overloaded"] * 2
