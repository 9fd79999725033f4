"""Who fails waits longer each time, up to a limit, and not in step with others."""

from random import Random

from noti.backoff import Backoff


def test_waits_double_to_a_limit_and_are_never_the_same_for_all() -> None:
    for seed in range(9):
        backoff = Backoff(Random(seed), first_s=0.1, most_s=10)
        for attempt in range(2000):
            longest_s = min(10, 0.1 * 2 ** min(attempt, 10))
            assert longest_s / 2 <= backoff.failed() <= longest_s
        assert backoff.failures == 2000
    assert len({Backoff(Random(seed)).failed() for seed in range(9)}) == 9


def test_a_wait_is_longer_than_asked_for_and_short_after_success() -> None:
    backoff = Backoff(Random(1), first_s=0.1, most_s=10)
    assert 8.75 <= backoff.failed(7) <= 10.5
    assert 0.1 <= backoff.failed() <= 0.2
    assert 0.3 <= backoff.failed(0.1) <= 0.5
    backoff.succeeded()
    assert backoff.failed() <= 0.1
