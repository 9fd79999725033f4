"""Commands that need only the data directory read no other setting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from noti.cli.data_directory import (
    DIRECTORY_VARIABLE,
    FILE_VARIABLE,
    data_directory,
    node_options,
)
from noti.cli.settings import settings_options
from noti.config import variable_of
from noti.errors import ConfigInvalid


def test_flags_are_those_of_the_settings() -> None:
    assert told(node_options) == told(settings_options("data_dir"))
    assert variable_of("data_dir") == DIRECTORY_VARIABLE


def told(decorate: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Return what click knows of the options that a decorator adds."""
    command = click.command()(decorate(lambda **_: None))
    return [parameter.to_info_dict() for parameter in command.params]


def test_flag_wins_over_the_variable_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text('data_dir = "of-the-file"\n')
    assert data_directory(None, None) == Path("noti-data")
    assert data_directory(file, None) == Path("of-the-file")
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    assert data_directory(None, None) == Path("of-the-file")
    monkeypatch.setenv(DIRECTORY_VARIABLE, "of-the-variable")
    assert data_directory(file, None) == Path("of-the-variable")
    assert data_directory(file, "of-the-flag") == Path("of-the-flag")


def test_file_that_cannot_be_read_is_an_error_when_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        data_directory(tmp_path / "missing", None)
    assert data_directory(tmp_path / "missing", "given") == Path("given")
