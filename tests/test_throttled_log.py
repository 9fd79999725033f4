"""What is logged when something happens again and again, to one or to many."""

import pytest

from noti.throttled_log import INTERVAL_S, KEYS_MAX, ThrottledLog


class Stage:
    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[dict[str, object]] = []
        self.throttled = ThrottledLog(lambda: self.now)

    def happens(self, key: str, **fields: object) -> bool:
        return self.throttled.log(self._write, "it happens", key, who=key, **fields)

    def _write(self, event: str, **fields: object) -> None:
        assert event == "it happens"
        self.lines.append(fields)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_the_first_is_logged_at_once_and_the_next_after_the_interval_with_a_count(
    stage: Stage,
) -> None:
    assert [stage.happens("a") for _ in range(3)] == [True, False, False]
    stage.now += INTERVAL_S - 1
    assert not stage.happens("a")
    stage.now += 1
    assert stage.happens("a", why="again")
    assert stage.lines == [{"who": "a"}, {"who": "a", "why": "again", "suppressed": 3}]


def test_what_is_rare_is_always_logged_and_without_a_count(stage: Stage) -> None:
    for _ in range(3):
        assert stage.happens("a")
        stage.now += INTERVAL_S
    assert stage.lines == [{"who": "a"}] * 3


def test_each_key_is_throttled_by_itself(stage: Stage) -> None:
    stage.happens("a")
    assert stage.happens("b")
    assert not stage.happens("a")


def test_a_flood_of_keys_bounds_the_lines_of_an_interval_and_the_memory(stage: Stage) -> None:
    logged = sum(stage.happens(str(number)) for number in range(3 * KEYS_MAX))
    assert logged == KEYS_MAX + 1
    assert len(stage.throttled._logged_at) == KEYS_MAX + 1
    assert len(stage.throttled._suppressed) == 1
    assert not stage.happens("0"), "those who came first are still known"
    stage.now += INTERVAL_S
    assert stage.happens("new"), "there is room again"
    assert len(stage.throttled._logged_at) == KEYS_MAX + 1
