"""What the commands share that ask the node of this machine."""

import os
from pathlib import Path

import click
import pytest

from noti.cli import exit_status
from noti.cli.data_directory import node_options
from noti.cli.local_node import in_columns, key_value, local_node
from noti.membership.control_client import ControlClient
from tests.cli.local_nodes import scripted_node


@click.group()
@node_options
def outer(**_options: object) -> None:
    pass


@outer.command()
@node_options
@click.pass_context
def inner(context: click.Context, config_file: Path | None, data_dir: str | None) -> None:
    with local_node(context, config_file, data_dir) as node:
        assert isinstance(node, ControlClient)


def test_directory_may_stand_before_the_inner_command_and_behind_it(tmp_path: Path) -> None:
    empty, here = ["--data-dir", str(tmp_path / "empty")], ["--data-dir", str(tmp_path)]
    with scripted_node(tmp_path):
        assert exit_status([*here, "inner"], outer) == 0
        assert exit_status(["inner", *here], outer) == 0
        assert exit_status([*empty, "inner", *here], outer) == 0
        assert exit_status([*empty, "inner"], outer) == 1


def test_settings_file_names_the_directory_too(tmp_path: Path) -> None:
    settings = tmp_path / "noti.toml"
    settings.write_text(f'data_dir = "{tmp_path}"\n')
    with scripted_node(tmp_path):
        assert exit_status(["inner", "--config", str(settings)], outer) == 0
        assert exit_status(["--config", str(settings), "inner"], outer) == 0


def test_columns_are_as_wide_as_their_widest_cell_and_no_terminal_obeys_them() -> None:
    rows = [["a", "bbb", ""], ["aa", "b", "\x1b[31m"]]
    assert in_columns(rows) == ["a   bbb", "aa  b    \\x1b[31m"]
    assert in_columns([]) == []


@pytest.mark.parametrize("command", ["event", "query", "force-leave", "members forget"])
def test_name_that_is_no_text_is_told_before_anybody_is_asked(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command.split(), os.fsdecode(b"\xff"), "--data-dir", str(tmp_path)]
    assert exit_status(arguments) == 2
    assert "is not UTF-8" in capsys.readouterr().err


def test_pairs_are_split_at_the_first_sign() -> None:
    context, parameter = click.Context(outer), click.Option(["--tag"])
    assert key_value(context, parameter, ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for wrong in ("a", "=b"):
        with pytest.raises(click.BadParameter, match="is not KEY=VALUE"):
            key_value(context, parameter, [wrong])
