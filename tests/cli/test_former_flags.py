"""Flags of bb-dist-noti at `noti run`."""

import json

import click
import pytest

from noti.cli import exit_status
from noti.cli.former_flags import former_flags, translated
from noti.cli.run import run
from noti.cli.settings import load_config, settings_options
from noti.config import Config

SCRIPT = """--data-dir=./dev-data/node2 --node-name=node2 --http-addr=:8502
--serf-addr=127.0.0.2:8501 --rpc-port=8500 --start-join-addrs=127.0.0.1:8401 --nats-addr nats://localhost:4222
--history-size=1000"""
"""As its Makefile starts a node."""


def loaded(*arguments: str) -> Config:
    @click.command()
    @settings_options()
    @former_flags
    def command(**options: object) -> None:
        configs.append(load_config(None, translated({**options, "config_file": None})))

    configs: list[Config] = []
    command.main(list(arguments), standalone_mode=False)
    return configs[0]


def test_flags_that_mean_the_same_are_taken() -> None:
    config = loaded(*SCRIPT.split())
    assert config.name == "node2"
    assert config.gossip_addr == ("127.0.0.2", 8501)
    assert config.rpc_addr == ("127.0.0.2", 8500)
    assert config.http_addr == ("", 8502)
    assert config.join == (("127.0.0.1", 8401),)
    assert config.nats_url == "nats://localhost:4222"
    assert config.history_size == 1000


def test_addresses_to_join_come_in_one_flag_or_in_several() -> None:
    config = loaded("--start-join-addrs=a:1,b:2", "--start-join-addrs", "c:3")
    assert config.join == (("a", 1), ("b", 2), ("c", 3))


def test_rpc_port_alone_is_at_the_default_host() -> None:
    assert loaded("--rpc-port=9000").rpc_addr == ("127.0.0.1", 9000)


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--bootstrap", "--bootstrap-expect 3"),
        ("--bootstrap=true", "--bootstrap-expect 3"),
        ("--cluster-run=true", "--join"),
        ("--env=prod", "--log-format"),
        ("--http-write-timeout=10m", "--sse-lifetime-s"),
        ("--http-read-timeout=10s", "leave it out"),
        ("--http-idle-timeout=10s", "leave it out"),
        ("--http-shutdown-timeout=10s", "--shutdown-deadline-s"),
        ("--server-tls-cert-file=a.pem", "--tls-cert"),
        ("--peer-tls-ca-file=a.pem", "--tls-ca"),
    ],
)
def test_flag_without_an_equal_is_refused_with_what_to_do(
    flag: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["run", flag]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    line = json.loads(said)["event"]  # as all lines of a node that does not write to a terminal
    assert line.startswith(f"{flag.partition('=')[0]} is of bb-dist-noti; here, ")
    assert named in line


def test_every_setting_that_a_refusal_names_is_there() -> None:
    flags = {name for option in run.params for name in option.opts}
    for option in run.params:
        if not isinstance(option, click.Option) or not option.hidden:
            continue
        try:
            translated({option.name or "": ("x:1",) if option.multiple else "1"})
        except click.UsageError as error:
            named = {word.strip(",;:") for word in str(error).split() if word.startswith("--")}
            assert named <= flags


def test_flag_beside_its_equal_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["run", "--node-name=a", "--name=b"]) == 2
    assert "--node-name is --name here; give one of them" in capsys.readouterr().err


def test_help_shows_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--gossip-addr" in shown
    assert "--serf-addr" not in shown
    assert "--env" not in shown
