"""Settings: where they come from, which one wins, and what is said about a wrong one."""

import os
import re
from pathlib import Path

import pytest

from noti.cli.loading import load
from noti.config import Config
from noti.errors import ConfigInvalid
from tests.settings import clean_environment as clean_environment
from tests.settings import problem


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "noti.toml"


def test_later_sources_win(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('name = "file"\nhistory_size = 10\nbootstrap_expect = 3\n')
    monkeypatch.setenv("NOTI_HISTORY_SIZE", "20")
    monkeypatch.setenv("NOTI_BOOTSTRAP_EXPECT", "5")
    config = load({"bootstrap_expect": "1"}, toml)
    assert (config.name, config.history_size, config.bootstrap_expect) == ("file", 20, 1)
    assert config.election_timeout_ms == Config().election_timeout_ms


def test_the_file_may_be_named_by_the_environment(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text('join = ["127.0.0.1:8401", "[::1]:8501"]\n')
    monkeypatch.setenv("NOTI_CONFIG", str(toml))
    assert load({}).join == (("127.0.0.1", 8401), ("::1", 8501))


def test_a_list_in_the_environment_is_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTI_JOIN", "a:1, b:2")
    assert load({}).join == (("a", 1), ("b", 2))


def test_an_address_in_the_environment_is_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTI_HTTP_ADDR", "[::1]:9")
    assert load({}).http_addr == ("::1", 9)


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTI_NATS_URL", "")
    assert load({}).nats_url is None


def test_a_wrong_value_is_reported_with_its_source(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem({"http_addr": "x"}).startswith(
        "setting http_addr (from flag --http-addr): 'x' is not host:port"
    )
    monkeypatch.setenv("NOTI_HTTP_ADDR", "y")
    assert "(from environment variable NOTI_HTTP_ADDR): 'y'" in problem({})
    monkeypatch.delenv("NOTI_HTTP_ADDR")
    toml.write_text('http_addr = "z"')
    assert f"(from file {toml}): 'z'" in problem({}, toml)


def test_an_unknown_key_is_rejected_with_the_nearest_name(toml: Path) -> None:
    toml.write_text("histroy_size = 10")
    text = problem({}, toml)
    assert str(toml) in text
    assert text.endswith("did you mean history_size?")


def test_an_unknown_variable_is_rejected_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTI_HTTP_ADR", "127.0.0.1:1")
    assert problem({}).endswith("NOTI_HTTP_ADR; did you mean NOTI_HTTP_ADDR?")


def test_variables_that_kubernetes_sets_for_a_service_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (
        "NOTI_SERVICE_HOST",
        "NOTI_SERVICE_PORT_HTTP",
        "NOTI_PORT",
        "NOTI_PORT_8402_TCP_ADDR",
        "NOTI_FOLLOWER_PORT_8401_UDP",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8402")
    load({})


def test_an_unreadable_file_is_reported_in_one_line(toml: Path) -> None:
    assert "No such file" in problem({}, toml)
    toml.write_text("name = ")
    assert "not valid TOML" in problem({}, toml)
    toml.write_bytes(b"\xff\xfe")
    assert "is not UTF-8 at byte 1; save it as that" in problem({}, toml)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("name = 7", "should be text, in quotes"),
        ("data_dir = 7", "should be text, in quotes"),
        ('history_size = "many"', "should be a whole number"),
        ("history_size = 1.5", "should be a whole number"),
        ("history_size = 0", "should be 1 or more"),
        ("pacing_s = 601", "should be 600 or less"),
        ('pacing_s = "long"', "should be a number"),
        ('subscriptions = "perhaps"', "should be true or false"),
        ("http_addr = 8402", "is not host:port in quotes"),
        ("join = 8401", "is not a list"),
        ("join = [8401]", "is not host:port in quotes"),
        ('trusted_proxies = ["10.0.0"]', "is not a network"),
        ('gossip_profile = "wan"', "should be 'local' or 'lan'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_rejected_in_our_words(
    line: str, wrong: str, toml: Path
) -> None:
    toml.write_text(line)
    told = problem({}, toml)
    assert f" {wrong}" in told
    assert not re.search("Input|valid|Tuple|parse", told)


def test_a_command_may_have_a_default_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"nats_url": "nats://a:1"}
    assert load({}, defaults=own).nats_url == "nats://a:1"
    monkeypatch.setenv("NOTI_NATS_URL", "nats://b:2")
    assert load({}, defaults=own).nats_url == "nats://b:2"


def test_file_of_settings_that_is_none_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large.toml"
    os.mkfifo(pipe)
    large.write_bytes(b"#\n" * (1 << 20))
    for file, reason in ((pipe, "not a regular file"), (large, "more than any")):
        with pytest.raises(ConfigInvalid, match=reason):
            load({}, file)


@pytest.mark.parametrize("text", [b"\xef\xbb\xbfname = 'a'\r\n", b"name = 'a'\r\n", b"name = 'a'"])
def test_file_may_be_as_editors_of_other_systems_write_it(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "noti.toml"
    file.write_bytes(text)
    assert load({}, file).name == "a"


def test_nul_in_a_file_is_told_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "noti.toml"
    file.write_text('data_dir = "a\\u0000b"')
    assert problem({}, file) == f"setting data_dir (from file {file}): holds \\u0000; remove it"
