"""What a node knows of an event's id: where it is, to how many it was sent, why it was refused."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from noti.history.retention import Kept
from noti.history.store import Store
from noti.tracing.refusals import Refusal, Refusals
from noti.tracing.trail import EventTrail


class SentEvent(NamedTuple):
    """To how many streams of a process an event was handed."""

    seq: int
    streams: int
    complete: bool
    """Whether there were no more; what is long ago is not known any more."""


class ProcessReport(NamedTuple):
    """What one process with streams knows."""

    web_worker: int
    """0 for the node itself."""
    sent: list[SentEvent]
    refused: list[Refusal]
    """None or one."""


class EventKnowledge(Protocol):
    """The browsers' side of a node: `noti.http.clients.Clients`."""

    @property
    def trail(self) -> EventTrail:
        """Where in the log events are."""

    async def known_of(self, event_id: str, seqs: Sequence[int]) -> list[ProcessReport]:
        """Return what each process with streams knows of an id, whose events these are."""


class EventLookup:
    """Of one node."""

    def __init__(
        self,
        name: str,
        store: Store,
        refusals: Refusals,
        knowledge: EventKnowledge,
    ) -> None:
        """`name` is the node's; `refusals` are those of this process."""
        self._name = name
        self._store = store
        self._refusals = refusals
        self._knowledge = knowledge

    async def __call__(self, event_id: str) -> dict[str, object]:
        """Return what is known, ready for JSON."""
        found = self._store.with_id(event_id)
        knowledge = self._knowledge
        reports = await knowledge.known_of(event_id, [kept.notification.seq for kept in found])
        own = self._refusals.of(event_id)
        refused = [one for report in reports for one in report.refused]
        if own is not None:
            refused.append(own)
        return {
            "node": self._name,
            "id": event_id,
            "events": [_event(kept, knowledge.trail, reports) for kept in found],
            "refused": [one._asdict() for one in sorted(refused)],
            "last_seq": self._store.last_seq,
        }


def _event(kept: Kept, trail: EventTrail, reports: Sequence[ProcessReport]) -> dict[str, object]:
    notification = kept.notification
    seq = notification.seq
    command = trail.command_of(seq)
    sent = [one for report in reports for one in report.sent if one.seq == seq]
    return {
        "seq": seq,
        "topics": list(notification.topics),
        "private": notification.private,
        "created_ms": notification.created_ms,
        "taken_ms": kept.taken_ms,
        "log_index": None if command is None else command.log_index,
        "applied_ms": None if command is None else command.applied_ms,
        "source_seq": None if command is None else command.source_seq_of(seq),
        "streams": sum(one.streams for one in sent),
        "streams_complete": all(one.complete for one in sent),
    }
