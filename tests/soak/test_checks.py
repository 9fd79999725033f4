"""Each promise of the table can be broken: forged observations, one wrong thing in each."""

import dataclasses
from typing import Any

import pytest
from rich.console import Console

from tests.soak.checks import (
    COMMIT_S_MAX,
    JUDGED_S_MIN,
    MEMORY_BYTES_MAX,
    MIB,
    Check,
    Observed,
    checks,
    table,
)
from tests.soak.cluster import Exit
from tests.soak.watch import Sample

NODES = ("node1", "node2", "node3")


def samples(memory_mib: list[float], seconds: float = JUDGED_S_MIN) -> list[Sample]:
    """Samples of all nodes, whose memory changes evenly through these sizes."""
    count = 400
    return [
        Sample(n * seconds / count, name, int(memory_mib[n * len(memory_mib) // count] * MIB), 50)
        for n in range(count)
        for name in NODES
    ]


GOOD = Observed(
    seconds=JUDGED_S_MIN,
    published=1000,
    seen=1000,
    deliveries=300_000,
    by_transport={"SSE": 290_000, "SSE, TLS": 10_000},
    closes={"1001": 3, "1006": 7, "1008": 1, "1013": 1},
    closed={"behind": 2, "stalled": 2, "disconnected": 300},
    idle_opened=4,
    exits=[Exit("node1", "SIGKILL", "kill -9", "…")],
    silences=[(1.0, 3.0)],
    samples=samples([100, 200, 200, 205]),
    histories=[0, 0, 0],
    open_streams=304,
    subscriptions=[304, 304, 304],
)


def broken(seen: Observed) -> list[Check]:
    return [line for line in checks(seen) if line.broken]


def test_what_is_right_breaks_nothing() -> None:
    assert broken(GOOD) == []


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"missing": 1}, "acknowledged and never shown"),
        ({"lost": 1}, "lost deliveries"),
        ({"by_transport": {"SSE": 1, "SSE, TLS": 0}}, "deliveries by SSE, TLS"),
        ({"closes": {"1001": 5, "1011": 1}}, "WebSockets closed with code"),
        ({"twice": 1}, "twice"),
        ({"disorder": 1}, "out of order"),
        ({"uncopied": 1}, "dead letters never copied"),
        ({"copied_twice": 1}, "dead letters copied twice"),
        ({"left": 1}, "left in streams unacknowledged"),
        ({"leaked": 1}, "private events shown without the right"),
        ({"subscriptions": [304, 305, 304]}, "subscriptions that nodes list"),
        ({"subscriptions": [304, 304, None]}, "subscriptions that nodes list"),
        ({"gaps": 1}, "gaps told to browsers that read"),
        ({"ended": 1}, "streams ended without trouble"),
        ({"closed": {"behind": 5}}, "browsers that read closed as slow"),
        ({"closed": {"stalled": 5}}, "browsers that read closed as slow"),
        ({"closed": {"overrun": 1}}, "browsers that read closed as slow"),
        ({"exits": [Exit("node1", "exit status 1", "", "…")]}, "unexpected exits of nodes"),
        ({"silences": [(1.0, 1.0 + COMMIT_S_MAX)]}, "longest time without an event"),
        ({"histories": [0, 100, 0]}, "events in all histories"),
        ({"histories": [0, None, 0]}, "events in all histories"),
        ({"samples": samples([100, 200, 200, 212])}, "memory of all, second to last quarter"),
        ({"broken": ["not whole again"]}, "other promises broken"),
    ],
)
def test_each_promise_can_be_broken(wrong: dict[str, Any], name: str) -> None:
    assert [line.name for line in broken(dataclasses.replace(GOOD, **wrong))] == [name]


def test_a_node_that_takes_too_much_memory_once_is_found() -> None:
    peak = Sample(60.0, "node2", MEMORY_BYTES_MAX, 50)
    seen = dataclasses.replace(GOOD, samples=[*GOOD.samples[:300], peak, *GOOD.samples[300:]])
    assert [line.name for line in broken(seen)] == ["memory of node2"]
    assert broken(dataclasses.replace(seen, workers={"node2": 1})) == []


def test_gaps_break_nothing_where_history_is_short() -> None:
    assert broken(dataclasses.replace(GOOD, gaps=5, gaps_allowed=True)) == []


def test_growth_is_not_judged_while_histories_fill() -> None:
    seen = dataclasses.replace(GOOD, seconds=600, samples=samples([100, 120, 150, 200], 600))
    assert broken(seen) == []


def test_the_table_shows_what_was_broken() -> None:
    console = Console(record=True, width=100)
    console.print(table(checks(dataclasses.replace(GOOD, lost=7)), "soak seed=1"))
    [line] = [line for line in console.export_text().splitlines() if "lost deliveries" in line]
    assert "7" in line
    assert "BROKEN" in line
