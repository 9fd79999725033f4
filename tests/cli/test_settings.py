"""Flags are made from the settings, all of them, and no default is told twice."""

from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from noti.cli.settings import load_config, settings_options
from noti.config import Config, flag_of, has_flag


@click.command()
@settings_options()
def every(config_file: Path | None, **options: Any) -> None:
    click.echo(load_config(config_file, options).masked())


@click.command()
@settings_options("nats_url", "history_size")
def some(config_file: Path | None, **options: Any) -> None:
    click.echo(sorted(options))


def test_each_setting_has_a_flag_with_its_description() -> None:
    page = " ".join(CliRunner().invoke(every, ["--help"], terminal_width=500).output.split())
    for name, field in Config.model_fields.items():
        if not has_flag(name):
            assert flag_of(name) + " " not in page
            continue
        assert flag_of(name) in page.replace(" / ", "/")
        assert field.description is not None, f"{name} has no docstring"
        assert " ".join(field.description.replace("`", "").split()) in page


def test_a_command_may_offer_some_settings_only() -> None:
    assert CliRunner().invoke(some, []).output == "['history_size', 'nats_url']\n"
    assert CliRunner().invoke(some, ["--name", "n"]).exit_code == 2


def test_flags_that_were_not_given_leave_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "noti.toml"
    file.write_text('name = "file"\njoin = ["a:1"]\n')
    output = CliRunner().invoke(every, ["--config", str(file), "--history-size", "7"]).output
    assert "'name': 'file'" in output
    assert "'join': ['a:1']" in output
    assert "'history_size': 7" in output


def test_a_flag_for_a_list_is_repeated() -> None:
    output = CliRunner().invoke(every, ["--join", "a:1", "--join", "b:2"]).output
    assert "'join': ['a:1', 'b:2']" in output


def test_an_empty_flag_is_not_taken_for_a_missing_one() -> None:
    assert "letters, digits" in str(CliRunner().invoke(every, ["--name", ""]).exception)


def test_help_shows_choices_units_and_defaults() -> None:
    page = " ".join(CliRunner().invoke(every, ["--help"], terminal_width=500).output.split())
    assert "--gossip-profile [local|lan]" in page
    assert "--heartbeat-interval-ms MS" in page
    assert "--http-addr HOST:PORT" in page
    assert "[default: 127.0.0.1:8402]" in page


def test_a_choice_has_a_flag_for_no() -> None:
    for flag, expected in (("--anonymous", True), ("--no-anonymous", False)):
        assert f"'anonymous': {expected}" in CliRunner().invoke(every, [flag]).output
    assert "'anonymous': None" in CliRunner().invoke(every, []).output


def test_a_switch_needs_no_value_and_takes_one() -> None:
    for given, expected in [
        (["--subscriptions"], True),
        (["--subscriptions", "--history-size", "7"], True),
        (["--subscriptions", "false"], False),
        ([], False),
    ]:
        output = CliRunner().invoke(every, given).output
        assert f"'subscriptions': {expected}" in output, output
