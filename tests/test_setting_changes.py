"""Which of newer settings a node takes, and which wait for a restart."""

import pytest

from noti.config import Config, is_secret
from noti.errors import ConfigInvalid
from noti.setting_changes import RELOADED, change_of


def test_what_is_reloaded_is_a_setting_that_a_file_can_hold() -> None:
    assert set(Config.model_fields) >= RELOADED
    assert not [name for name in RELOADED if is_secret(name)]


def test_settings_that_may_change_are_taken_and_others_wait() -> None:
    current = Config(name="a", history_size=5, http_addr=("127.0.0.1", 1))
    newer = Config(name="a", history_size=6, http_addr=("127.0.0.1", 2), log_level="debug")
    change = change_of(current, newer)
    assert (change.taken, change.waiting) == (("history_size", "log_level"), ("http_addr",))
    assert change.config == current.model_copy(update={"history_size": 6, "log_level": "debug"})


def test_what_waits_is_told_again_as_long_as_it_does() -> None:
    current, newer = Config(name="a"), Config(name="b")
    again = change_of(change_of(current, newer).config, newer)
    assert (again.taken, again.waiting) == ((), ("name",))
    assert change_of(current, current).waiting == ()


def test_default_that_depends_on_what_waits_stays_as_it_is() -> None:
    current = Config(name="a", http_addr=("127.0.0.1", 1))
    newer = Config(name="a", http_addr=("10.0.0.1", 1), history_size=6)
    assert change_of(current, newer).config.allows_anonymous


def test_what_only_makes_sense_after_a_restart_is_rejected() -> None:
    current = Config(name="a", publisher_jwt_key="s" * 32)  # type: ignore[arg-type]
    newer = Config(name="a", subscriptions=True, publisher_jwt_key_file="k")  # type: ignore[arg-type]
    with pytest.raises(ConfigInvalid, match=r"publisher_jwt_key_file .*publisher_jwt_key cannot"):
        change_of(current, newer)


@pytest.mark.parametrize("lost", ["name", "anonymous", "publisher_jwt_key_file"])
def test_file_that_is_half_written_opens_nothing(lost: str) -> None:
    given: dict[str, object] = {
        "name": "a",
        "anonymous": False,
        "publisher_jwt_key_file": "k",
        "history_size": 5,
    }
    rest = {name: value for name, value in given.items() if name != lost}
    with pytest.raises(ConfigInvalid, match=f"are gone: {lost}; if the file is not half written"):
        change_of(Config.model_validate(given), Config.model_validate(rest))


def test_limit_that_is_no_longer_given_is_the_default_again() -> None:
    current = Config(name="a", history_size=5)
    assert change_of(current, Config(name="a")).config.history_size == 100_000
