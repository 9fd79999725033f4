"""What became of messages is counted once, and told within bounds."""

import structlog.testing
from prometheus_client import REGISTRY

from noti.publishing.nats.outcomes import Outcomes
from noti.publishing.nats.ports import DeadLetter, SourceMessage
from tests.simulation.clocks import MachineClock


def letters(*seqs: int) -> list[DeadLetter]:
    return [DeadLetter(SourceMessage(seq, "a.b", b""), "is empty") for seq in seqs]


def count(name: str, outcome: str) -> float:
    labels = {"stream": name, "outcome": outcome}
    return REGISTRY.get_sample_value("noti_source_events_total", labels) or 0.0


async def test_dead_letter_that_comes_again_is_neither_counted_nor_told() -> None:
    outcomes = Outcomes("again", MachineClock())
    with structlog.testing.capture_logs() as logs:
        outcomes.dead_letters("again@1", letters(3, 5))
        outcomes.dead_letters("again@1", letters(3, 5, 6))
        outcomes.dead_letters("again@1", letters(6))
    assert [line["seq"] for line in logs] == [3, 5, 6]
    assert outcomes.dead_letter_count == count("again", "dead_letter") == 3


async def test_dead_letters_of_a_stream_made_anew_are_news() -> None:
    outcomes = Outcomes("anew", MachineClock())
    outcomes.dead_letters("anew@1", letters(3))
    outcomes.dead_letters("anew@2", letters(1))
    assert outcomes.dead_letter_count == 2


async def test_many_dead_letters_take_few_lines() -> None:
    outcomes = Outcomes("many", MachineClock())
    with structlog.testing.capture_logs() as logs:
        outcomes.dead_letters("many@1", letters(*range(1, 501)))
    assert len(logs) == 6
    assert logs[-1]["count"] == 495
    assert outcomes.dead_letter_count == 500


async def test_time_to_commit_is_that_of_the_oldest_of_a_batch() -> None:
    clock = MachineClock()
    outcomes = Outcomes("timed", clock)
    outcomes.committed(7, clock.wall_ms() - 40)
    buckets = {
        bound: REGISTRY.get_sample_value(
            "noti_source_commit_seconds_bucket", {"stream": "timed", "le": bound}
        )
        for bound in ("0.02", "0.05")
    }
    assert buckets == {"0.02": 0.0, "0.05": 1.0}
    assert outcomes.committed_count == count("timed", "committed") == 7
