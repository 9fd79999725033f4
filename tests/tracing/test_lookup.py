"""A node says of an id what all of its processes know."""

from collections.abc import Sequence

from noti.history.commands import PublishBatch, encode
from noti.history.notification import Event
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from noti.tracing.lookup import EventLookup, ProcessReport, SentEvent
from noti.tracing.refusals import Refusal, Refusals
from noti.tracing.trail import EventTrail
from tests.history.test_state_machine import HistoryObserver


class Browsers:
    """Two processes, one of which has forgotten something."""

    def __init__(self) -> None:
        self.trail = EventTrail(lambda: 1700)

    async def known_of(self, event_id: str, seqs: Sequence[int]) -> list[ProcessReport]:
        refused = [Refusal(5, "full", 2)] if event_id == "refused" else []
        return [
            ProcessReport(1, [SentEvent(seq, 20, complete=True) for seq in seqs], refused),
            ProcessReport(2, [SentEvent(seq, 3, complete=seq > 1) for seq in seqs], []),
        ]


def node() -> tuple[EventLookup, Refusals]:
    store, browsers, refusals = Store(), Browsers(), Refusals(lambda: 9)
    machine = HistoryStateMachine(store, HistoryObserver(), browsers.trail)
    first = Event(41, "a", ("t", "u"), "one", 1500, private=True)
    second = Event(42, "a", ("t",), "another one", 1501)
    machine.apply(encode(PublishBatch("s", (first, second), 1600)), 7)
    return EventLookup("node1", store, refusals, browsers), refusals


async def test_each_version_of_an_id_is_found_with_its_place_and_its_streams() -> None:
    lookup, _ = node()
    answer = await lookup("a")
    assert answer["node"] == "node1"
    assert answer["refused"] == []
    assert answer["last_seq"] == 2
    assert answer["events"] == [
        {
            "seq": 1,
            "topics": ["t", "u"],
            "private": True,
            "created_ms": 1500,
            "taken_ms": 1600,
            "log_index": 7,
            "applied_ms": 1700,
            "source_seq": 41,
            "streams": 23,
            "streams_complete": False,
        },
        {
            "seq": 2,
            "topics": ["t"],
            "private": False,
            "created_ms": 1501,
            "taken_ms": 1600,
            "log_index": 7,
            "applied_ms": 1700,
            "source_seq": 42,
            "streams": 23,
            "streams_complete": True,
        },
    ]


async def test_refusals_of_all_processes_are_told() -> None:
    lookup, refusals = node()
    refusals.note(["refused"], "a topic is empty")
    answer = await lookup("refused")
    assert answer["events"] == []
    assert answer["refused"] == [
        {"at_ms": 5, "reason": "full", "times": 2},
        {"at_ms": 9, "reason": "a topic is empty", "times": 1},
    ]


async def test_event_that_was_applied_before_the_trail_began_is_found_all_the_same() -> None:
    store = Store()
    store.apply(encode(PublishBatch("s", (Event(1, "a", ("t",), "one", 1500),), 1600)))
    answer = await EventLookup("node1", store, Refusals(lambda: 9), Browsers())("a")
    assert isinstance(answer["events"], list)
    assert [answer["events"][0][name] for name in ("seq", "log_index", "applied_ms")] == [
        1,
        None,
        None,
    ]
