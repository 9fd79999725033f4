"""Which data directory a command is about.

The settings, which take longer to load than a node needs to answer, are loaded only when neither
flag nor variable names it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

FILE_VARIABLE = "NOTI_CONFIG"
DIRECTORY_VARIABLE = "NOTI_DATA_DIR"

config_option: Decorator = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help=f"TOML file with settings, keys as flags with _ for -; also {FILE_VARIABLE}.",
)


def node_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that say which node: the one that runs with --data-dir."""
    data_dir = click.option(
        "--data-dir",
        "data_dir",
        metavar="DIRECTORY",
        help="Directory for the log, the snapshots and the node's identity; one per node, never "
        "shared.  [default: noti-data]",
    )
    return config_option(data_dir(function))


def data_directory(config_file: Path | None, data_dir: str | None) -> Path:
    """Return the directory: of the flag, else of the variable, the file, or the default.

    Raises `ConfigInvalid` when the settings had to be loaded and cannot.
    """
    named = data_dir or os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return Path(named)
    from noti.cli.loading import load

    return load({}, config_file).data_dir
