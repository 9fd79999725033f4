"""Why ids were refused is remembered, for the last of them."""

from noti.tracing.refusals import IDS_MAX, REASON_CHARACTERS_MAX, Refusal, Refusals


def test_last_reason_and_how_often() -> None:
    times = iter(range(100, 200))
    refusals = Refusals(lambda: next(times))
    refusals.note(["a", "b"], "full")
    refusals.note(["a"], "x" * 1000)
    assert refusals.of("a") == Refusal(101, "x" * REASON_CHARACTERS_MAX, 2)
    assert refusals.of("b") == Refusal(100, "full", 1)
    assert refusals.of("c") is None


def test_oldest_ids_are_forgotten() -> None:
    refusals = Refusals(lambda: 0)
    refusals.note(map(str, range(IDS_MAX)), "full")
    refusals.note(["0", "new"], "full")
    assert refusals.of("1") is None
    assert refusals.of("0") == Refusal(0, "full", 2)
    assert refusals.of("2")
