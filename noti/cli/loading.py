"""Reads the settings of a node: defaults < file < environment < flags, the later one wins.

A wrong setting is reported in one line, with where it came from; credentials are not shown.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from noti.cli.data_directory import FILE_VARIABLE
from noti.cli.nodes import COMMAND_VARIABLES
from noti.config import (
    VARIABLE_PREFIX,
    Config,
    aliases_of,
    flag_of,
    has_flag,
    is_secret,
    shown,
    variable_of,
)
from noti.errors import ConfigInvalid

_NO_SETTINGS = COMMAND_VARIABLES | {FILE_VARIABLE}

_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$"
)
"""Kubernetes sets such variables for every service; a service `noti` makes them `NOTI_…`."""


def load(
    flags: Mapping[str, object],
    file: Path | None = None,
    defaults: Mapping[str, object] = MappingProxyType({}),
) -> Config:
    """Compose the configuration from defaults, `file` (or `NOTI_CONFIG`), environment and `flags`.

    `flags` holds only what was given, by setting name; `defaults` are those that are others than
    a node's. Raises `ConfigInvalid` with one line that
    says which setting is wrong, where it came from, what is wrong with it and what to do.
    """
    file = file_of(file)
    from_file = {} if file is None else _read_file(file)
    _check_variables()
    variables = {setting: _variable_with(setting) for setting in Config.model_fields}
    from_environment = {
        setting: os.environ[variable] for setting, variable in variables.items() if variable
    }
    values = {**defaults, **from_file, **from_environment, **flags}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        setting = _setting_of(detail)
        if setting in flags:
            origin = f"flag {flag_of(setting)}"
        elif setting in from_environment:
            origin = f"environment variable {variables[setting]}"
        elif setting in from_file:
            origin = f"file {file}"
        else:
            origin = "default"
        raise ConfigInvalid(_explain(setting, origin, detail, values)) from None


def file_of(file: Path | None) -> Path | None:
    """Return the file of settings: the one that is given, or that `NOTI_CONFIG` names."""
    named = os.environ.get(FILE_VARIABLE)
    return Path(named) if file is None and named else file


def _variable_with(setting: str) -> str | None:
    """Return the environment variable that sets a setting; ours wins over Mercure's."""
    names = (variable_of(setting), *aliases_of(setting))
    return next((name for name in names if os.environ.get(name)), None)


def _setting_of(detail: ErrorDetails) -> str:
    if detail["loc"]:
        return str(detail["loc"][0])
    return str(detail.get("ctx", {}).get("setting", "configuration"))


def _explain(setting: str, origin: str, detail: ErrorDetails, values: Mapping[str, object]) -> str:
    value = detail["input"] if detail["loc"] else values.get(setting)
    if value is None and setting in Config.model_fields:
        value = Config.model_fields[setting].get_default(call_default_factory=True)
    problem = _problem_of(detail)
    if setting == "web_workers" and detail["type"].startswith("int"):
        problem += ", or auto"
    where, told = setting, f"{shown(setting, value)!r} {problem}"
    if setting == "nats_streams":
        where = _where(detail["loc"], values) or setting
        told = told if isinstance(value, str) else problem  # a table says too much
    return f"setting {where} (from {origin}): {told}".replace("\n", " ")


def _where(location: tuple[int | str, ...], values: object) -> str:
    """Return the way to a value in tables: by their number, from 1, and name."""
    words: list[str] = []
    for step in location:
        if isinstance(step, str):
            words.append(step)
            values = values.get(step) if isinstance(values, Mapping) else None
        else:
            values = values[step] if isinstance(values, list | tuple) else None
            name = values.get("name", values.get("subject")) if isinstance(values, Mapping) else ""
            words.append(f"{step + 1} ({name})" if name else f"{step + 1}")
    return " ".join(words)


def _problem_of(detail: ErrorDetails) -> str:
    """Return what is wrong with a value, in our words."""
    limits = detail.get("ctx", {})
    match detail["type"].split("_"):
        case ["int", *_]:
            return "should be a whole number"
        case ["float", *_] | ["finite", *_]:
            return "should be a number"
        case ["bool", *_]:
            return "should be true or false"
        case ["string" | "path", *_]:
            return "should be text, in quotes"
        case ["ip", *_]:
            return "is not a network; write for example 10.0.0.0/8"
        case ["greater", *_]:
            return f"should be {_plain(limits['ge'])} or more"
        case ["less", *_]:
            return f"should be {_plain(limits['le'])} or less"
        case ["missing"]:
            return "is missing; every such table needs it"
        case ["extra", *_]:
            return "is no setting of such a table; see noti/publishing/nats/README.md"
        case ["tuple" | "model", *_]:
            return "should be tables, [[nats_streams]] and in it [[nats_streams.subjects]]"
        case ["literal", *_]:
            return f"should be {limits['expected']}"
        case _:
            return detail["msg"].removeprefix("Value error, ")


def _plain(limit: object) -> str:
    return str(limit).removesuffix(".0")


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(
            f"configuration file {file} cannot be read: {error.strerror};"
            f" check --config or {FILE_VARIABLE}"
        ) from None
    except ValueError as error:
        raise ConfigInvalid(f"configuration file {file} is not valid TOML: {error}") from None
    for key in values:
        if key not in Config.model_fields:
            raise ConfigInvalid(f"unknown setting {key!r} in file {file}{_nearest(key)}")
    return values


def _check_variables() -> None:
    for variable in sorted(os.environ):
        if not variable.startswith(VARIABLE_PREFIX) or variable in _NO_SETTINGS:
            continue
        setting = variable.removeprefix(VARIABLE_PREFIX).lower()
        known = setting in Config.model_fields and variable == variable_of(setting)
        if known and not (has_flag(setting) or is_secret(setting)):
            raise ConfigInvalid(
                f"environment variable {variable} cannot hold tables; write them into a file, and"
                f" name it by --config or {FILE_VARIABLE}"
            )
        if not known and not _SERVICE_LINK.search(variable):
            hint = _nearest(setting, spell=variable_of)
            raise ConfigInvalid(f"unknown environment variable {variable}{hint}")


def _nearest(name: str, spell: Callable[[str], str] = str) -> str:
    close = difflib.get_close_matches(name.lower().replace("-", "_"), Config.model_fields, n=1)
    return f"; did you mean {spell(close[0])}?" if close else "; see noti run --help for all names"
