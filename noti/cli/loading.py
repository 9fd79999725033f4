"""Reads the settings of a node: defaults < file < environment < flags, the later one wins.

A wrong setting is reported in one line, with where it came from; credentials are not shown.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from noti.certificates.files import read_file
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
from noti.setting_rules import Problem

_NO_SETTINGS = COMMAND_VARIABLES | {FILE_VARIABLE}

_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$"
)
"""Kubernetes sets such variables for every service; a service `noti` makes them `NOTI_…`."""


_KEY = re.compile(r"\s*(?:\[+\s*(?P<table>[\w-]+)|\"?(?P<key>[\w-]+)\"?\s*=)")
"""The beginning of a line that sets a key, or begins a table."""


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
    given = given_settings(flags, file, defaults)
    config, problems = validated(given)
    if told := [*given.problems, *(text for _, text in problems)]:
        raise ConfigInvalid(told[0])
    assert config is not None, "nothing is wrong with it"
    return config


def file_of(file: Path | None) -> Path | None:
    """Return the file of settings: the one that is given, or that `NOTI_CONFIG` names."""
    named = os.environ.get(FILE_VARIABLE)
    return Path(named) if file is None and named else file


@dataclass(frozen=True, slots=True)
class GivenSettings:
    """What was given, by setting, and where; each as it was written."""

    flags: Mapping[str, object]
    variables: Mapping[str, str]
    """Names of environment variables."""
    file: Path | None
    in_file: Mapping[str, Any]
    lines: Mapping[str, int]
    """At which lines of the file."""
    defaults: Mapping[str, object]
    """Other defaults than a node's."""
    problems: tuple[str, ...] = ()
    """What is wrong with the file, or is no setting."""

    def values(self) -> dict[str, object]:
        """Return what counts."""
        of_variables = {setting: os.environ[name] for setting, name in self.variables.items()}
        return {**self.defaults, **self.in_file, **of_variables, **self.flags}

    def origin(self, setting: str) -> str:
        """Return where a setting came from, in an error."""
        if setting in self.flags:
            return f"flag {flag_of(setting)}"
        if setting in self.variables:
            return f"environment variable {self.variables[setting]}"
        return f"file {self.file}" if setting in self.in_file else "default"

    def source(self, setting: str) -> str:
        """Return the same in short, with the line of a file."""
        if setting not in self.flags and setting not in self.variables and setting in self.lines:
            return f"{self.file}:{self.lines[setting]}"
        return self.origin(setting).removeprefix("flag ").removeprefix("environment variable ")


def given_settings(
    flags: Mapping[str, object],
    file: Path | None,
    defaults: Mapping[str, object] = MappingProxyType({}),
) -> GivenSettings:
    """Return what is given by flags, the environment and a file; raises nothing."""
    file = file_of(file)
    problems: list[str] = []
    text, in_file = "", dict[str, Any]()
    if file is not None:
        try:
            text, in_file = _read_file(file)
        except ConfigInvalid as error:
            problems.append(str(error))
    for key in [key for key in in_file if key not in Config.model_fields]:
        del in_file[key]
        problems.append(f"unknown setting {key!r} in file {file}{_nearest(key)}")
    for key in [key for key, value in in_file.items() if isinstance(value, str) and "\0" in value]:
        del in_file[key]  # no path or name holds one, and it fails wherever it gets
        problems.append(f"setting {key} (from file {file}): holds \\u0000; remove it")
    problems += _problems_of_variables()
    variables = {name: _variable_with(name) for name in Config.model_fields}
    return GivenSettings(
        flags,
        {name: variable for name, variable in variables.items() if variable},
        file,
        in_file,
        _lines_of(text),
        defaults,
        tuple(problems),
    )


def checked(given: GivenSettings) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return all that `validated` would say as one problem after the other is mended.

    The configuration is without what is wrong by itself.
    """
    config, problems = validated(given)
    if config is not None:
        return config, problems
    wrong = {setting for setting, _ in problems}
    config, relations = validated(given, without=wrong)
    return config, (*problems, *(one for one in relations if not _is_about(one, wrong)))


def _is_about(problem: Problem, settings: Collection[str]) -> bool:
    """Whether a problem may be one only because these settings were left out."""
    words = {word.replace("-", "_") for word in re.findall(r"\w[\w-]*", problem[1])}
    return not words.isdisjoint(settings)


def validated(
    given: GivenSettings, without: Collection[str] = ()
) -> tuple[Config | None, tuple[Problem, ...]]:
    """Return the configuration, and what is wrong, by setting and as one line.

    The configuration is there if each setting, but those left out, is right by itself.
    """
    values = {name: value for name, value in given.values().items() if name not in without}
    try:
        return Config.model_validate(values), ()
    except ValidationError as error:
        details = error.errors(include_url=False)
    if details[0]["type"] == "relation":
        context = details[0]["ctx"]
        return context["config"], tuple(
            (name, _told(name, given.origin(name), values.get(name), problem))
            for name, problem in context["problems"]
        )
    problems: dict[tuple[int | str, ...], Problem] = {}
    for detail in details:
        place = detail["loc"]
        setting = str(place[0])
        if setting != "nats_streams":  # of a union, each of its kinds has something to say
            place = (setting, *(step for step in place if isinstance(step, int)))
        text = _explain(setting, given.origin(setting), detail, values)
        problems.setdefault(place, (setting, text))
    return None, tuple(problems.values())


def _variable_with(setting: str) -> str | None:
    """Return the environment variable that sets a setting; ours wins over Mercure's."""
    names = (variable_of(setting), *aliases_of(setting))
    return next((name for name in names if os.environ.get(name)), None)


def _explain(setting: str, origin: str, detail: ErrorDetails, values: Mapping[str, object]) -> str:
    value, problem = detail["input"], _problem_of(detail)
    if setting == "web_workers" and detail["type"].startswith("int"):
        problem += ", or auto"
    if setting == "nats_streams":
        where = _where(detail["loc"], values) or setting
        if isinstance(value, str):  # a table says too much
            problem = f"{value!r} {problem}"
        return _told(where, origin, None, problem)
    return _told(setting, origin, value, problem)


def _told(setting: str, origin: str, value: object, problem: str) -> str:
    """Return an error; `setting` may be a way into tables."""
    if setting in Config.model_fields and setting != "nats_streams":
        if value is None:
            value = Config.model_fields[setting].get_default(call_default_factory=True)
        # What is not given has no value to show.
        problem = f"{'it' if value is None else repr(shown(setting, value))} {problem}"
    return f"setting {setting} (from {origin}): {problem}".replace("\n", " ")


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


def _read_file(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a file and what it says; raises `ConfigInvalid`."""
    try:
        content = read_file(file, "configuration file", may_be_empty=True)
        text = content.decode("utf-8-sig")  # editors of Windows begin a file with a mark
        return text, tomllib.loads(text)
    except ConfigInvalid as error:
        raise ConfigInvalid(f"configuration file {error} (--config or {FILE_VARIABLE})") from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid(
            f"configuration file {file} is not UTF-8 at byte {error.start + 1}; save it as that"
        ) from None
    except ValueError as error:
        raise ConfigInvalid(f"configuration file {file} is not valid TOML: {error}") from None


def _lines_of(text: str) -> dict[str, int]:
    """Return at which line each key of a TOML file is set, or its table begins."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (match := _KEY.match(line)) is not None:
            lines.setdefault(match["table"] or match["key"], number)
    return lines


def _problems_of_variables() -> Iterator[str]:
    for variable in sorted(os.environ):
        if not variable.startswith(VARIABLE_PREFIX) or variable in _NO_SETTINGS:
            continue
        setting = variable.removeprefix(VARIABLE_PREFIX).lower()
        known = setting in Config.model_fields and variable == variable_of(setting)
        if known and not (has_flag(setting) or is_secret(setting)):
            yield (
                f"environment variable {variable} cannot hold tables; write them into a file, and"
                f" name it by --config or {FILE_VARIABLE}"
            )
        if not known and not _SERVICE_LINK.search(variable):
            hint = _nearest(setting, spell=variable_of)
            yield f"unknown environment variable {variable}{hint}"


def _nearest(name: str, spell: Callable[[str], str] = str) -> str:
    close = difflib.get_close_matches(name.lower().replace("-", "_"), Config.model_fields, n=1)
    return f"; did you mean {spell(close[0])}?" if close else "; see noti run --help for all names"
