"""`noti config`: what `noti run` would use, out of file, environment and flags, checked."""

import json
from pathlib import Path
from typing import Any

import click

from noti.cli.settings import load_config, settings_options
from noti.config import Config
from noti.setting_rules import STREAM_FLAGS


@click.command()
@settings_options()
def config(config_file: Path | None, **options: Any) -> None:
    """Show the settings that a node would run with, as a file has them.

    Takes what noti run takes, and refuses what it would refuse, with status 2. What the flags say
    about a stream is shown as the tables that mean the same. Credentials are masked.
    """
    settings = load_config(config_file, options)
    from noti.publishing.nats.mapping import mapping_of  # takes as long as all else here

    for stream in settings.streams:
        mapping_of(stream)
    click.echo("\n".join(_lines(settings)))


def _lines(settings: Config) -> list[str]:
    """Return the file; what is not set, or masked, stands there as a comment."""
    lines = []
    for name, value in settings.masked().items():
        if name == "nats_streams" or (settings.streams and name in STREAM_FLAGS):
            continue
        # A masked value is no value: a node must not take it out of the file for one.
        comment = "# " if value is None or "***" in str(value) else ""
        lines.append(f"{comment}{name} = {'' if value is None else _toml(value)}".rstrip())
    for stream in settings.streams:
        lines += [
            "",
            "[[nats_streams]]",
            f"name = {_toml(stream.name)}",
            f"durable = {_toml(stream.durable or settings.nats_durable)}",
            f"dead_letter = {_toml(stream.dead_letter_subject)}",
        ]
        for subject in stream.subjects:
            plain = subject.model_dump(mode="json", exclude_none=True)
            lines += ["", "[[nats_streams.subjects]]"]
            lines += [f"{name} = {_toml(value)}" for name, value in plain.items()]
    return lines


def _toml(value: object) -> str:
    """Return a value as TOML; text, numbers, booleans and lists of them are as in JSON."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
