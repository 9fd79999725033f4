"""Makes command-line flags out of the settings, so that each setting is declared once."""

import types
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from noti.address import Address, format_address, parse_address
from noti.cli.data_directory import Decorator, config_option
from noti.cli.loading import load
from noti.config import Config, flag_of, has_flag


def settings_options(*names: str) -> Decorator:
    """Return a decorator that adds `--config` and a flag for each named setting (or for all)."""
    options: list[Decorator] = [config_option]
    named = names or [name for name in Config.model_fields if has_flag(name)]
    options += [_option(name, Config.model_fields[name]) for name in named]
    return lambda function: reduce(lambda inner, option: option(inner), reversed(options), function)


def load_config(config_file: Path | None, options: dict[str, Any], **defaults: object) -> Config:
    """Load the configuration with the flags that were really given; raises `ConfigInvalid`.

    `defaults` are the command's own.
    """
    return load(given_flags(options), config_file, defaults)


def given_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that were really given."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def as_address(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Address | None:
    """Return host:port as an address; a callback of click options that are no settings."""
    try:
        return None if value is None else parse_address(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}", context, parameter) from None


def _option(name: str, field: FieldInfo) -> Decorator:
    description = (field.description or "").replace("\n", " ").replace("`", "")
    default = field.default
    if "[default" not in description and default not in (None, ()):
        if isinstance(default, tuple):
            default = format_address(default)
        description += f"  [default: {default}]"
    if field.annotation == bool | None:
        return click.option(flag_of(name), name, default=None, help=description)
    if field.annotation is bool:
        # By itself it means yes; a value may follow, as in a file.
        return click.option(
            flag_of(name),
            name,
            is_flag=False,
            flag_value="true",
            metavar="[BOOL]",
            help=description,
        )
    multiple = field.default == ()
    return click.option(
        flag_of(name), name, multiple=multiple, metavar=_metavar(name, field), help=description
    )


def _metavar(name: str, field: FieldInfo) -> str:
    """Name the kind of value: by its choices, its unit, or its type."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return "[" + "|".join(get_args(kind)) + "]"
    if name.endswith(("_cert", "_key", "_ca", "_file")):
        return "FILE"
    if name.endswith("_addr") or name == "join":
        return "HOST:PORT"
    if isinstance(kind, types.UnionType):
        kind = get_args(kind)[0]
    for suffix, unit in (("_ms", "MS"), ("_s", "SECONDS"), ("_bytes", "BYTES"), ("_url", "URL")):
        if name.endswith(suffix):
            return unit
    return {int: "N", Path: "DIRECTORY"}.get(kind, "TEXT") if isinstance(kind, type) else "TEXT"
