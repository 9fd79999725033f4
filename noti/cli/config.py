"""`noti config`: what `noti run` would use, out of file, environment and flags, checked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noti.cli.deadline import timeout_option
from noti.cli.former_flags import former_flags, translated
from noti.cli.json_output import json_option
from noti.cli.loading import checked, given_settings
from noti.cli.settings import given_flags, load_config, settings_options
from noti.config import Config
from noti.setting_rules import STREAM_FLAGS

if TYPE_CHECKING:
    from noti.cli.config_check import ConfigFinding

PROBLEMS = 2
"""Exit status when a node would not start, or not work."""


@click.group(invoke_without_command=True)
@settings_options()
@former_flags
@click.pass_context
def config(context: click.Context, /, config_file: Path | None, **options: Any) -> None:
    """Show the settings that a node would run with, as a file has them.

    Takes what noti run takes, and refuses what it would refuse, with status 2. What the flags say
    about a stream is shown as the tables that mean the same. Credentials are masked.
    """
    if context.invoked_subcommand is None:
        click.echo("\n".join(_lines(_valid(config_file, translated(options)))))


def _valid(config_file: Path | None, options: dict[str, Any]) -> Config:
    settings = load_config(config_file, options)
    from noti.publishing.nats.mapping import mapping_of  # takes as long as all else here

    for stream in settings.streams:
        mapping_of(stream)
    return settings


def _with_outer(
    context: click.Context, config_file: Path | None, options: Mapping[str, Any]
) -> tuple[Path | None, dict[str, Any]]:
    """Return file and flags, also those before the subcommand: noti config --name a check."""
    outer = dict(context.parent.params) if context.parent is not None else {}
    outer_file = outer.pop("config_file", None)
    return config_file or outer_file, translated({**given_flags(outer), **given_flags(options)})


@config.command("print")
@json_option
@settings_options()
@former_flags
@click.pass_context
def print_command(
    context: click.Context, /, config_file: Path | None, as_json: bool, **options: Any
) -> None:
    """Show each setting with where it comes from.

    That is a flag, an environment variable, a line of the file, or the default. Credentials are
    masked; a node would take what is shown for a file.
    """
    file, flags = _with_outer(context, config_file, options)
    settings = _valid(file, flags)
    given = given_settings(flags, file)
    shown = [
        {"setting": name, "value": value, "source": given.source(name)}
        for name, value in settings.masked().items()
        if name != "nats_streams" or settings.nats_streams
    ]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    for one in shown:
        click.echo(f"{_line(str(one['setting']), one['value'])}  # {one['source']}")


@config.command()
@click.option("--nats", is_flag=True, help="Also log in to NATS, and look for the streams.")
@json_option
@timeout_option
@settings_options()
@former_flags
@click.pass_context
def check(
    context: click.Context,
    /,
    config_file: Path | None,
    nats: bool,
    as_json: bool,
    timeout_s: float,
    **options: Any,
) -> int:
    """Say all that is wrong with the settings, and with what they name, without starting a node.

    That is: each setting and which go together; certificates and keys, and who can read them; the
    data directory, and whose it is; whether the addresses can be used. Beside a node that runs,
    what it has itself is no trouble. Exit status 2 if a node would not start, or not work.
    """
    # Here, as all that a node reads takes a while to load.
    from noti.cli.config_check import ConfigFinding, findings_of, findings_of_nats

    file, flags = _with_outer(context, config_file, options)
    given = given_settings(flags, file)
    settings, problems = checked(given)
    findings = [ConfigFinding("", problem) for problem in given.problems]
    findings += [ConfigFinding(setting, problem) for setting, problem in problems]
    wrong = {setting for setting, _ in problems}
    if settings is not None:
        findings += [one for one in findings_of(settings) if one.setting not in wrong]
        if nats:
            findings += findings_of_nats(settings, timeout_s)
    return _report(findings, as_json=as_json)


def _report(findings: Sequence["ConfigFinding"], *, as_json: bool) -> int:
    """Print what was found; return the exit status."""
    problems = [finding for finding in findings if finding.is_problem]
    if as_json:
        shown = [
            {"setting": one.setting, "problem": one.is_problem, "text": one.text}
            for one in findings
        ]
        click.echo(json.dumps(shown, indent=2))
    else:
        for one in findings:
            click.echo(f"noti: {'error' if one.is_problem else 'warning'}: {one.text}", err=True)
        if not problems:
            click.echo("a node can run with these settings")
    return PROBLEMS if problems else 0


def _lines(settings: Config) -> list[str]:
    """Return the file; what is not set, or masked, stands there as a comment."""
    lines = []
    for name, value in settings.masked().items():
        if name == "nats_streams" or (settings.streams and name in STREAM_FLAGS):
            continue
        lines.append(_line(name, value))
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


def _line(name: str, value: object) -> str:
    # A masked value is no value: a node must not take it out of the file for one.
    comment = "# " if value is None or "***" in str(value) else ""
    return f"{comment}{name} = {'' if value is None else _toml(value)}".rstrip()


def _toml(value: object) -> str:
    """Return a value as TOML; text, numbers, booleans and lists of them are as in JSON."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
