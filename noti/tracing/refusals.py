"""Why events of late did not become events: by the ids that their publishers gave them."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

IDS_MAX: Final = 1000
"""Ids that are remembered, those that were refused last; with their reasons some 0.5 MB."""
REASON_CHARACTERS_MAX: Final = 300


class Refusal(NamedTuple):
    """The last refusal of an id, and how often there was one."""

    at_ms: int
    """Wall time, ms since 1970."""
    reason: str
    times: int


class Refusals:
    """Of one process."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._by_id: OrderedDict[str, Refusal] = OrderedDict()

    def note(self, ids: Iterable[str], reason: str) -> None:
        """Note that events with these ids were refused together."""
        at_ms, reason = self._wall_ms(), reason[:REASON_CHARACTERS_MAX]
        for event_id in ids:
            before = self._by_id.pop(event_id, None)
            times = 1 if before is None else before.times + 1
            self._by_id[event_id] = Refusal(at_ms, reason, times)
            if len(self._by_id) > IDS_MAX:
                self._by_id.popitem(last=False)

    def of(self, event_id: str) -> Refusal | None:
        """Return why an id was refused, if it was of late."""
        return self._by_id.get(event_id)
