"""What is shipped to install a node has settings and commands that there are."""

import tomllib
from pathlib import Path

import pytest
import yaml

from noti import __version__
from noti.cli import exit_status
from noti.cli.loading import load

DEPLOYMENT = Path(__file__).parents[2] / "noti" / "deployment"
COMPOSE = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())
NODES = ["node1", "node2", "node3"]
KEYS = {
    "NOTI_GOSSIP_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "NOTI_PUBLISHER_JWT_KEY": "0" * 64,
}


@pytest.mark.parametrize("node", NODES)
def test_settings_of_a_node_under_compose_are_good(
    node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = COMPOSE["services"][node]
    for name, value in {**service["environment"], **KEYS}.items():
        monkeypatch.setenv(name, value)
    config = load({}, None, {})
    assert (config.name, config.advertise_host) == (node, node)
    assert {host for host, _ in config.join} == set(NODES)
    assert service["image"].endswith(f":-noti:{__version__}}}")
    inside = {published.split(":")[2] for published in service["ports"]}
    assert inside == {str(config.http_addr[1]), str(config.ops_addr[1])}


def test_settings_of_a_node_under_systemd_are_good() -> None:
    file = DEPLOYMENT / "noti.toml"
    config = load({}, file, {})
    assert str(config.data_dir) == "/var/lib/noti", "StateDirectory of the unit makes it"
    assert len(config.join) == config.bootstrap_expect
    assert (config.advertise_host, 8401) in config.join
    assert all(value is not None for value in tomllib.loads(file.read_text()).values())


def test_commands_of_the_unit_are_those_of_noti() -> None:
    lines = (DEPLOYMENT / "noti.service").read_text().splitlines()
    commands = [line.partition("=")[2].split() for line in lines if line.startswith("ExecStart")]
    for program, *words in commands:
        assert program == "/opt/noti/bin/noti"
        assert words[-2:] == ["--config", "/etc/noti/noti.toml"]
        assert exit_status([*words[:-2], "--help"]) == 0
    assert len(commands) == 2
