"""systemd is told when a node is ready, and a node does not need it."""

import socket
from pathlib import Path

import pytest
import structlog.testing

from noti.systemd import VARIABLE, tell_ready


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_that_the_process_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"@{tmp_path}/notify" if abstract else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        monkeypatch.setenv(VARIABLE, name)
        tell_ready()
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("place", [None, ""])
def test_without_systemd_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if place is not None:
        monkeypatch.setenv(VARIABLE, place)
    with structlog.testing.capture_logs() as lines:
        tell_ready()
    assert lines == []


def test_a_manager_that_does_not_listen_is_only_worth_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nobody"))
    with structlog.testing.capture_logs() as lines:
        tell_ready()
    assert [line["log_level"] for line in lines] == ["warning"]
