"""Commands that ask a node ask the next one when one does not answer."""

import json
from pathlib import Path

import click
import pytest

from noti.cli import exit_status
from noti.cli.loading import load
from noti.cli.nodes import OPS_URLS_VARIABLE, URLS_VARIABLE, first_answer, urls_in, urls_option
from noti.errors import ConfigInvalid, MessageInvalid, Unavailable
from tests.cli.test_status import REPORT, node
from tests.settings import clean_environment as clean_environment

NOBODY = "http://127.0.0.1:1"


def test_next_node_is_asked_when_one_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def ask(url: str) -> str:
        asked.append(url)
        if url == "a":
            raise Unavailable("a is down")
        if url == "b":
            raise MessageInvalid("b is a printer")
        return f"answer of {url}"

    assert first_answer(["a", "b", "c", "d"], ask) == "answer of c"
    assert asked == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == [
        "noti: a is down; asking the next node",
        "noti: b is a printer; asking the next node",
    ]


def test_what_no_node_can_help_is_raised_at_once() -> None:
    def ask(url: str) -> None:
        raise ConfigInvalid(f"{url}: no such file")

    with pytest.raises(ConfigInvalid, match="a: no such file"):
        first_answer(["a", "b"], ask)


def test_that_none_answers_is_one_error() -> None:
    def ask(url: str) -> None:
        raise MessageInvalid(f"{url} is a printer")

    with pytest.raises(MessageInvalid, match=r"^a is a printer$"):
        first_answer(["a"], ask)
    with pytest.raises(Unavailable, match="none of 2 nodes answers, the last: b is a printer"):
        first_answer(["a", "b"], ask)


def test_urls_are_those_of_the_flag_or_the_variable_or_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    @urls_option("http://default", "--http")
    def command(urls: tuple[str, ...]) -> None:
        chosen.append(urls)

    chosen: list[tuple[str, ...]] = []
    command.main([], standalone_mode=False)
    monkeypatch.setenv(URLS_VARIABLE, "http://a, http://b\nhttp://c")
    command.main([], standalone_mode=False)
    command.main(["--url", "http://d", "--http", "http://e"], standalone_mode=False)
    assert chosen == [
        ("http://default",),
        ("http://a", "http://b", "http://c"),
        ("http://d", "http://e"),
    ]
    assert urls_in("NOTI_NOTHING") == ()


def test_variables_of_commands_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URLS_VARIABLE, "http://a")
    monkeypatch.setenv(OPS_URLS_VARIABLE, "http://a")
    load({})
    monkeypatch.setenv("NOTI_URLZ", "http://a")
    with pytest.raises(ConfigInvalid, match="unknown environment variable NOTI_URLZ"):
        load({})


@pytest.mark.parametrize("command", ["status", "members"])
def test_a_command_shows_the_report_of_the_first_node_that_answers(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with node(json.dumps(REPORT).encode()) as url:
        assert exit_status([command, "--url", NOBODY, "--url", url, "--json"]) == 0
        shown = capsys.readouterr()
        assert "asking the next node" in shown.err
        monkeypatch.setenv(OPS_URLS_VARIABLE, f"{NOBODY},{url}")
        assert exit_status([command, "--json"]) == 0
        assert capsys.readouterr().out == shown.out
    report = json.loads(shown.out)
    assert report["members"] == REPORT["members"]
    assert (report == REPORT) is (command == "status")


def test_backup_to_standard_output_is_not_begun_twice(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with node(b"no backup") as one, node(b"nor this") as two:
        where = ["--url", one, "--url", two, "--token-file", str(token)]
        assert exit_status(["backup", "-", *where]) == 1
    shown = capsysbinary.readouterr()
    assert shown.out in (b"no backup", b"")
    assert b"what was written is no backup" in shown.err
