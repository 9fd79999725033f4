"""`noti config` shows what a node would run with, and refuses what it would refuse."""

import json
from pathlib import Path
from typing import get_args

import pytest

from noti.cli import exit_status
from noti.cli.loading import load
from noti.publishing.nats.message_headers import DIRECTIVES, MESSAGE_ID
from noti.stream_settings import DecoderName
from tests.readmes import ROOT
from tests.settings import clean_environment as clean_environment
from tests.test_config import TABLES


def test_settings_are_shown_as_a_file_that_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, shown = tmp_path / "noti.toml", tmp_path / "shown.toml"
    file.write_text(TABLES)
    flags = ["--join", "[::1]:8401", "--no-anonymous", "--history-max-age-s", "1.5"]
    assert exit_status(["config", "--config", str(file), *flags]) == 0
    shown.write_text(capsys.readouterr().out)
    again = load({}, shown)
    assert (again.join, again.anonymous, again.history_max_age_s) == ((("::1", 8401),), False, 1.5)
    assert [stream.subjects for stream in again.streams] == [
        stream.subjects for stream in load({}, file).streams
    ]
    assert exit_status(["config", "--config", str(shown)]) == 0
    assert capsys.readouterr().out == shown.read_text()


def test_flags_of_one_stream_are_shown_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--nats-url", "nats://me:secret@h", "--nats-stream", "s", "--nats-decoder", "json"]
    assert exit_status(["config", *flags, "--nats-subject", "a.>", "--nats-topic", "/{id}"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith(
        """
[[nats_streams]]
name = "s"
durable = "noti"
dead_letter = "noti.dead-letter.s"

[[nats_streams.subjects]]
subject = "a.>"
decoder = "json"
topic = "/{id}"
"""
    )
    assert '# nats_url = "nats://***@h"' in shown
    assert "secret" not in shown
    assert "\nnats_stream" not in shown


def test_readme_of_jetstream_has_tables_that_a_node_takes(tmp_path: Path) -> None:
    readme = (ROOT / "noti" / "publishing" / "nats" / "README.md").read_text()
    file = tmp_path / "noti.toml"
    file.write_text(readme.split("```toml")[1].split("```")[0])
    orders, audit = load({}, file).streams
    assert [one.decoder for one in orders.subjects] == ["json", "protobuf"]
    assert (audit.durable, audit.dead_letter_subject) == ("noti-audit", "dead.audit")
    for name in (*get_args(DecoderName), *sorted(DIRECTIVES), MESSAGE_ID):
        assert f"| `{name}` |" in readme.replace("**", "").lower(), f"{name} is not explained"


def test_masked_secret_is_no_setting_of_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTI_PUBLISHER_JWT_KEY", "hush")
    assert exit_status(["config"]) == 0
    assert '# publisher_jwt_key = "***"\n' in capsys.readouterr().out


def test_without_nats_no_stream_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["config", "--name", "n"]) == 0
    shown = capsys.readouterr().out
    assert "[[" not in shown
    assert "# nats_url =\n" in shown


def test_each_setting_is_shown_with_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text('# a\n"history_size" = 7\nname="n"\n\njoin = [\n  "a:1",\n]\n')
    monkeypatch.setenv("NOTI_HTTP_ADDR", "127.0.0.1:9")
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_KEY", "hush")
    flags = ["--config", str(file), "--name", "m"]
    assert exit_status(["config", *flags, "print", "--log-level", "debug"]) == 0
    shown = capsys.readouterr().out
    for line in (
        f"history_size = 7  # {file}:2",
        'name = "m"  # --name',
        f'join = ["a:1"]  # {file}:5',
        'http_addr = "127.0.0.1:9"  # NOTI_HTTP_ADDR',
        '# publisher_jwt_key = "***"  # MERCURE_PUBLISHER_JWT_KEY',
        'log_level = "debug"  # --log-level',
        "# nats_url =  # default",
    ):
        assert line in shown.splitlines()
    assert "hush" not in shown
    again = tmp_path / "again.toml"
    again.write_text(shown)
    assert load({}, again).history_size == 7
    assert exit_status(["config", "print", "--json", *flags]) == 0
    found = {one["setting"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["history_size"] == {
        "setting": "history_size",
        "value": 7,
        "source": f"{file}:2",
    }


def test_tables_are_shown_with_the_line_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text(TABLES)
    assert exit_status(["config", "print", "--config", str(file)]) == 0
    at = TABLES.splitlines().index("[[nats_streams]]") + 1
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("nats_streams")]
    assert line.endswith(f"# {file}:{at}")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--nats-topic", "{"], "stream jobs, subject jobs.noti.>: topic '{' has a single {"),
        (["--nats-decoder", "xml"], "should be 'category', 'json', 'text' or 'cloudevents'"),
        (["--nats-subject", "a..b"], "is not a NATS subject"),
    ],
)
def test_what_a_node_would_refuse_is_one_line(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["config", "--nats-url", "nats://h", *flags]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line


def test_message_that_is_not_in_its_descriptors_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "noti.toml"
    descriptors = tmp_path / "d.pb"
    descriptors.write_bytes(b"\n\x05\n\x03a.p")  # a set with one empty file
    file.write_text(
        f"""
nats_url = "nats://h"
[[nats_streams]]
name = "s"
[[nats_streams.subjects]]
subject = "a"
decoder = "protobuf"
descriptor_set = "{descriptors}"
message = "a.B"
"""
    )
    assert exit_status(["config", "--config", str(file)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"stream s, subject a: message 'a.B' is not in {descriptors}" in line
