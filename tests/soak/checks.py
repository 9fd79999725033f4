"""Whether each promise was kept, from what was seen; and the table that says so.

Enters: observations of one run. Leaves: one line for each promise, kept or broken.
Never: I/O; a promise that no observation could break (`test_checks.py` breaks each).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from noti.streams.end_reason import EndReason
from tests.soak.cluster import Exit
from tests.soak.watch import NOT_SLOW, Sample

COMMIT_S_MAX = 10.0
"""Elections and publishers that go to the next node take two or three seconds; this is for busy
machines. A hung disk or a paused leader that stops everybody takes as long as it lasts."""
MEMORY_BYTES_MAX = 700 * 1024 * 1024
"""Of one node with its log writer and 100,000 events of history, whatever the load."""
WORKER_BYTES_MAX = 400 * 1024 * 1024
"""Of each of its web workers, which has as much of history."""
JUDGED_S_MIN = 30 * 60
"""Shorter runs only fill their history."""
GROWTH_MAX = 0.05
"""Of the memory of all nodes together, from the second quarter to the last."""
ORDERLY = ("1001", "1006", "1008", "1013")
"""Close codes of WebSockets: a node goes away, it died (that is no code), a client is slow, all is
full."""
MIB = 1024 * 1024


@dataclass
class Observed:
    """What was seen in one run."""

    seconds: float = 0.0
    published: int = 0
    """Events that somebody acknowledged to their publisher."""
    seen: int = 0
    deliveries: int = 0
    lost: int = 0
    """Deliveries that a browser did not get, the end of the run included."""
    missing: int = 0
    """Acknowledged events that nobody got."""
    by_transport: Mapping[str, int] = field(default_factory=dict)
    """Deliveries over each transport that there is."""
    closes: Mapping[str, int] = field(default_factory=dict)
    """WebSockets that ended, by the code of their close."""
    twice: int = 0
    disorder: int = 0
    leaked: int = 0
    """Deliveries of private events to browsers without the right."""
    gaps: int = 0
    """News of a gap."""
    gaps_allowed: bool = False
    """Whether history is shorter than what browsers miss while they are away."""
    ended: int = 0
    """Streams that ended although nothing was wrong with their node."""
    closed: dict[str, int] = field(default_factory=dict)
    """Streams that nodes closed, by reason."""
    idle_opened: int = 0
    """Streams of browsers that never read; each may be closed once."""
    exits: Sequence[Exit] = ()
    silences: Sequence[tuple[float, float]] = ()
    busy_s: float = 0.0
    """The longest time for which nobody looked at what browsers got."""
    samples: Sequence[Sample] = ()
    workers: Mapping[str, int] = field(default_factory=dict)
    """How many web workers each node has; their memory is in its own."""
    histories: Sequence[int | None] = ()
    """Where each node's history begins."""
    garbage: int = 0
    """Messages of JetStream that can never be events, acknowledged to their publisher."""
    uncopied: int = 0
    """Of these, what has no dead letter."""
    copied_twice: int = 0
    """Dead letters of one message of a stream beyond the first."""
    left: int = 0
    """Messages in streams that drop what is acknowledged, when all was shown."""
    open_streams: int = 0
    """At the end, when all stay where they are."""
    subscriptions: Sequence[int | None] = ()
    """How many each node lists then; None for one that does not answer."""
    broken: Sequence[str] = ()
    """What was seen broken meanwhile, in words."""


@dataclass(frozen=True)
class Check:
    """One promise, or one figure without one."""

    name: str
    value: str
    wanted: str = ""
    broken: bool = False


def checks(seen: Observed) -> list[Check]:
    """Return all lines of the table."""
    unexpected = [one for one in seen.exits if not one.expected]
    silence_s = max((end - begin for begin, end in seen.silences), default=0.0)
    return [
        Check("events acknowledged", f"{seen.published:,}"),
        Check("deliveries", f"{seen.deliveries:,}"),
        *(
            Check(f"deliveries by {name}", f"{count:,}", "> 0", count == 0)
            for name, count in seen.by_transport.items()
        ),
        _none("acknowledged and never shown", seen.missing),
        _none("lost deliveries", seen.lost),
        _none("twice", seen.twice),
        _none("out of order", seen.disorder),
        _none("private events shown without the right", seen.leaked),
        Check("dead letters", f"{seen.garbage:,}"),
        _none("dead letters never copied", seen.uncopied),
        _none("dead letters copied twice", seen.copied_twice),
        _none("left in streams unacknowledged", seen.left),
        _none("unexpected exits of nodes", len(unexpected)),
        Check(
            "gaps told to browsers that read",
            f"{seen.gaps:,}",
            "" if seen.gaps_allowed else "0",
            seen.gaps > 0 and not seen.gaps_allowed,
        ),
        _none("browsers that read closed as slow", closed_healthy(seen)),
        _none("streams ended without trouble", seen.ended),
        Check(
            "WebSockets closed with code",
            ", ".join(f"{code}: {count:,}" for code, count in sorted(seen.closes.items())),
            ", ".join(ORDERLY),
            bool(seen.closes.keys() - set(ORDERLY)),
        ),
        Check(
            "longest time without an event",
            f"{silence_s:.1f} s",
            f"< {COMMIT_S_MAX:g} s",
            silence_s >= COMMIT_S_MAX,
        ),
        Check("longest turn of the browsers", f"{seen.busy_s:.1f} s"),
        Check(
            "events in all histories",
            " ".join("?" if place is None else f"from {place}" for place in seen.histories),
            "equal",
            None in seen.histories or len(set(seen.histories)) > 1,
        ),
        Check(
            "subscriptions that nodes list",
            " ".join("?" if count is None else str(count) for count in seen.subscriptions),
            f"{seen.open_streams} each",
            any(count != seen.open_streams for count in seen.subscriptions),
        ),
        *_resources(seen),
        _none("other promises broken", len(seen.broken)),
    ]


def closed_healthy(seen: Observed) -> int:
    """Return how many streams were closed as slow beyond those of browsers that never read.

    Those are never `OVERRUN`, as they took nothing.
    """
    slow = Counter({reason: n for reason, n in seen.closed.items() if reason not in NOT_SLOW})
    overrun = slow.pop(EndReason.OVERRUN.value, 0)
    return overrun + max(0, slow.total() - seen.idle_opened)


def _none(name: str, count: int) -> Check:
    return Check(name, f"{count:,}", "0", count > 0)


def _resources(seen: Observed) -> Iterable[Check]:
    """Memory and files of each node, first against last quarter, and of all together."""
    names = sorted({sample.node for sample in seen.samples})
    for name in names:
        memory = _quarters([(s.at, s.memory_bytes) for s in seen.samples if s.node == name])
        files = _quarters([(s.at, s.files) for s in seen.samples if s.node == name])
        most = max(sample.memory_bytes for sample in seen.samples if sample.node == name)
        told = f"{memory[0] / MIB:.0f} -> {memory[3] / MIB:.0f} MiB, at most {most / MIB:.0f}"
        limit_bytes = MEMORY_BYTES_MAX + seen.workers.get(name, 0) * WORKER_BYTES_MAX
        limit = f"< {limit_bytes // MIB} MiB"
        yield Check(f"memory of {name}", told, limit, most >= limit_bytes)
        yield Check(f"open files of {name}", f"{files[0]:.0f} -> {files[3]:.0f}")
    if seen.seconds >= JUDGED_S_MIN and names:
        per_node = [
            _quarters([(s.at, s.memory_bytes) for s in seen.samples if s.node == name])
            for name in names
        ]
        second, last = (sum(quarters[place] for quarters in per_node) for place in (1, 3))
        growth = last / second - 1
        yield Check(
            "memory of all, second to last quarter",
            f"{growth:+.1%}",
            f"< {GROWTH_MAX:+.0%}",
            growth >= GROWTH_MAX,
        )


def _quarters(points: Sequence[tuple[float, float]]) -> list[float]:
    """Return the medians of four equal stretches of time; of an empty one, that before it."""
    first, last = points[0][0], points[-1][0]
    width = (last - first) / 4 or 1.0
    medians: list[float] = []
    for number in range(4):
        begin, end = first + number * width, first + (number + 1) * width
        there = [value for at, value in points if begin <= at <= end]
        medians.append(median(there) if there else (medians or [points[0][1]])[-1])
    return medians


def table(lines: Sequence[Check], title: str) -> Table:
    """Return the lines as a person reads them."""
    shown = Table("what", "seen", "wanted", "", title=title)
    for line in lines:
        verdict = ("BROKEN" if line.broken else "kept") if line.wanted else ""
        shown.add_row(line.name, line.value, line.wanted, verdict)
    return shown
