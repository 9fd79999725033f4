"""Events are followed to their streams, those that are asked for, and found in the log."""

import structlog.testing

from noti.history.commands import Publish, PublishBatch, encode
from noti.history.notification import Event, Notification
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from noti.tracing.ports import Step
from noti.tracing.trail import AppliedCommand, EventTrail
from tests.history.test_state_machine import HistoryObserver
from tests.tracing.recorder import RecordingTracer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"


class Streams:
    def __init__(self, clients: int) -> None:
        self.clients = clients
        self.sending = True

    def audience_of(self, notification: Notification) -> int:
        return self.clients if notification.topics == ("t",) else 0


class Node:
    """A store whose events are followed."""

    def __init__(self, clients: int = 3, share: float = 0.0) -> None:
        self.streams, self.tracer = Streams(clients), RecordingTracer()
        self.trail = EventTrail(lambda: 1500, self.streams, tracer=self.tracer, log_share=share)
        self._machine = HistoryStateMachine(Store(), HistoryObserver(), self.trail)

    def apply(self, log_index: int, *events: Event, stream: str = "") -> None:
        command = PublishBatch(stream, events) if stream else Publish(events)
        self._machine.apply(encode(command), log_index)


def event(name: str, source_seq: int = 0, trace: str = "") -> Event:
    return Event(source_seq, name, ("t",), f"data of {name}", 1000, trace=trace)


def test_delivery_lasts_to_the_end_of_the_pass_and_says_how_many_streams_there_are() -> None:
    node = Node()
    node.apply(7, event("a"), event("b", trace=TRACE), event("c", trace=OTHER))
    [span] = node.tracer.of(Step.DELIVER)
    assert span.parents == [TRACE, OTHER]
    assert span.attributes["noti.log_index"] == 7
    node.trail.passed(2)
    assert span.problem is None
    node.trail.passed(3)
    assert span.problem == ""
    assert span.attributes["noti.streams"] == 6


def test_without_streams_nobody_waits_for_a_pass() -> None:
    node = Node(clients=0)
    node.apply(7, event("a", trace=TRACE))
    [span] = node.tracer.of(Step.DELIVER)
    assert (span.problem, span.attributes["noti.streams"]) == ("", 0)
    assert span.attributes["messaging.message.id"] == "a"


def test_events_without_a_trace_and_those_that_are_applied_again_have_no_span() -> None:
    node = Node()
    node.apply(7, event("a"))
    node.streams.sending = False
    node.apply(8, event("b", trace=TRACE))
    node.streams.sending = True
    node.apply(9, event("a", trace=TRACE))
    assert node.tracer.spans == []


def test_line_says_where_the_event_is_and_when_it_was_sent() -> None:
    node = Node(share=1.0)
    node.apply(7, event("a", 41), event("b", 43), stream="s")
    with structlog.testing.capture_logs() as logs:
        node.trail.passed(1)
    assert logs == [
        {
            "event": "event",
            "log_level": "info",
            "id": "a",
            "source_seq": 41,
            "log_index": 7,
            "seq": 1,
            "streams": 3,
            "delay_ms": 500,
        }
    ]


def test_all_nodes_log_the_same_share_of_events() -> None:
    seen = []
    for _ in range(2):
        node = Node(clients=0, share=0.1)
        with structlog.testing.capture_logs() as logs:
            for number in range(1000):
                node.apply(number, event(f"id-{number}"))
        seen.append([line["id"] for line in logs])
    assert seen[0] == seen[1]
    assert 60 < len(seen[0]) < 140


def test_share_of_events_that_are_logged_changes_while_the_node_runs() -> None:
    node = Node(clients=0)
    with structlog.testing.capture_logs() as logs:
        for name, share in (("a", 0.0), ("b", 1.0), ("c", 0.0)):
            node.trail.log_share(share)
            node.apply(7, event(name))
    assert [line["id"] for line in logs] == ["b"]


def test_command_of_an_event_is_known_with_its_place_in_the_stream() -> None:
    node = Node()
    node.apply(7, event("a", 41), event("b", 42), stream="s")
    node.apply(8, event("b", 43), event("c", 44), stream="s")  # of which one was shown
    node.apply(9, event("d"))
    assert node.trail.command_of(2) == AppliedCommand(1, 2, 7, 1500, 41)
    assert node.trail.command_of(3) == AppliedCommand(3, 3, 8, 1500, 0)
    assert node.trail.command_of(4) == AppliedCommand(4, 4, 9, 1500, 0)
    assert node.trail.command_of(5) is None
