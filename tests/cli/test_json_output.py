"""--json means JSON, and for commands of Serf's form the same as --format json."""

import json
from pathlib import Path

import click
import pytest

from noti.cli import exit_status
from noti.cli.json_output import format_option
from tests.certificates.authority import authority


@pytest.mark.parametrize(
    ("flags", "form"),
    [
        ([], "text"),
        (["--json"], "json"),
        (["--format", "json"], "json"),
        (["--json", "--format", "text"], "json"),
    ],
)
def test_form_is_told_by_either_flag(flags: list[str], form: str) -> None:
    chosen = []

    @click.command()
    @format_option
    def command(form: str) -> None:
        chosen.append(form)

    command.main(flags, standalone_mode=False)
    assert chosen == [form]


def test_certificates_are_shown_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority().pem)
    assert exit_status(["certs", "show", "--json", str(file)]) == 0
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["file"], shown["title"]) == (str(file), "certificate of a CA")
    assert "SHA-256" in shown["facts"]
