"""What happened in a simulated run: lines for people, a hash for machines, rare states counted.

It is readable, and has a hash that is equal exactly when everything noted was equal, and counts of
states reached. Its time is virtual.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog
import trio
from structlog.typing import EventDict

DELETED_UNREAD = "the stream deleted messages before they were read"
"""What a node logs then."""

PARTS_MAX = 1_000
"""What is hashed at once: to do so with each part takes twice as long."""

MACHINE: ContextVar[str] = ContextVar("machine", default="world")
"""In whose process a task runs, so that a log line can say who wrote it."""


class Timeline:
    """Grows as the run goes on."""

    def __init__(self, now: Callable[[], float], show: Callable[[str], None] | None = None) -> None:
        """`now` is virtual seconds; `show` gets each line at once."""
        self.lines: list[str] = []
        self.reached: Counter[str] = Counter()
        self._now = now
        self._show = show
        self._hash = hashlib.sha256()
        self._parts: list[str] = []
        self._over = False
        self.troubled: Callable[[], bool] = lambda: False
        """Whether something is broken now."""
        self.logged: Callable[[str, EventDict], None] = lambda what, fields: None
        """Hears what nodes log, and its fields."""

    def end(self, why: str) -> None:
        """Add a last line: what comes after a failure explains nothing."""
        self.note("check", f"BROKEN: {why}")
        self._over = True

    def note(self, who: str, what: str) -> None:
        """Add a line."""
        if self._over:
            return
        line = f"{self._now():11.6f} {who:9} {what}"
        self.lines.append(line)
        self._add(line)
        if self._show is not None:
            self._show(line)

    def mix(self, fact: str) -> None:
        """Let something too frequent to be read take part in the hash."""
        self._add(f"{self._now():.9f} {fact}")

    def _add(self, part: str) -> None:
        self._parts.append(part)
        if len(self._parts) >= PARTS_MAX:
            self._hash_parts()

    def _hash_parts(self) -> None:
        self._hash.update("".join(self._parts).encode())
        self._parts.clear()

    def reach(self, state: str) -> None:
        """Count a state that a good batch of runs reaches now and then."""
        self.reached[state] += 1

    def digest(self) -> str:
        """Return the hash of all that was noted until now."""
        self._hash_parts()
        return self._hash.hexdigest()[:32]

    @contextmanager
    def capture_logs(self) -> Iterator[None]:
        """Make lines of what the nodes log; their debug lines are left out."""
        before = structlog.get_config()
        structlog.configure(
            processors=[self._take_log],
            wrapper_class=structlog.make_filtering_bound_logger(20),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    def _take_log(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        what = str(event.pop("event"))
        if what in _REACHED_BY_LOG:
            self.reach(_REACHED_BY_LOG[what])
            if what == "membership changed" and self.troubled():
                self.reach("the membership changed under faults")
        self.logged(what, event)
        fields = " ".join(f"{name}={value}" for name, value in event.items())
        self.note(MACHINE.get(), f"{what} {fields}".rstrip())
        raise structlog.DropEvent


@contextmanager
def in_time(
    timeline: Timeline, seconds: float, failure: str, detail: Callable[[], object] = str
) -> Iterator[None]:
    """Make a failure of liveness say what is missing."""
    try:
        yield
    except trio.TooSlowError:
        message = f"{failure} within {seconds:.0f} s although all is whole: {detail()}"
        timeline.end(message)
        raise AssertionError(message) from None


_REACHED_BY_LOG = {
    "state replaced by the leader's snapshot": "a snapshot was installed",
    "repaired a write that a crash cut off; it was never acknowledged": (
        "a torn tail was repaired at a restart"
    ),
    "membership changed": "the membership changed",
    "reading stopped": "the bridge lost the source or its place",
    "a message can never be an event": "an invalid message was terminated",
    DELETED_UNREAD: "a node told of messages that were deleted unread",
}
