"""A node takes settings that change while it runs; wrong ones change nothing."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from structlog.testing import CapturingLogger, capture_logs

from noti import reloading
from noti.certificates.renewal import LOOK_INTERVAL_S
from noti.cli.loading import load
from noti.config import Config
from noti.errors import ConfigInvalid
from noti.reloading import REJECTED, WAITING, SettingsFile
from tests import promises
from tests.http.stage import LIMIT_S
from tests.interop.processes import NodeProcess, running_node, written
from tests.settings import clean_environment as clean_environment

SOON_S = 3 * LOOK_INTERVAL_S


class Stage:
    """A file of settings that is followed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.taken: list[Config] = []
        self.refuses = False
        self.settings = SettingsFile(load({}, file), lambda: load({}, file), file)

    def take(self, config: Config) -> None:
        if self.refuses:
            raise ConfigInvalid("key file x cannot be read")
        self.taken.append(config)

    def write(self, text: str) -> None:
        """Replace the file, as editors and Kubernetes do."""
        other = self.file.with_name("other")
        other.write_text(text)
        other.replace(self.file)


@asynccontextmanager
async def following(tmp_path: Path, text: str = "history_size = 5") -> AsyncIterator[Stage]:
    file = tmp_path / "noti.toml"
    file.write_text(text)
    stage = Stage(file)
    async with trio.open_nursery() as nursery:
        await nursery.start(stage.settings.run, stage.take)
        yield stage
        nursery.cancel_scope.cancel()


def told(logs: list[Any], event: str) -> list[Any]:
    return [one for one in logs if one["event"] == event]


def value(gauge: Any) -> float:
    [metric] = gauge.collect()
    return float(metric.samples[0].value)


async def test_changed_file_is_taken_and_only_what_differs_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as logs:
        async with following(tmp_path) as stage:
            await trio.sleep(SOON_S)
            assert not stage.taken
            stage.write("history_size = 6")
            await trio.sleep(SOON_S)
            assert [config.history_size for config in stage.taken] == [6]
            assert stage.settings.current.history_size == 6
    [line] = told(logs, "settings changed")
    assert line["history_size"] == 6
    assert "sse_clients_max" not in line


@promises.SETTINGS_CHANGE_WHOLE_OR_NOT
@pytest.mark.parametrize("text", ["history_size = 0", "histori = 5", "]"])
async def test_file_that_is_not_valid_changes_nothing_and_is_told(
    text: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as logs:
        async with following(tmp_path) as stage:
            stage.write(text)
            await trio.sleep(SOON_S)
            assert not stage.taken
            assert stage.settings.current.history_size == 5
            assert value(REJECTED) == 1
            stage.write("history_size = 7")
            await trio.sleep(SOON_S)
            assert stage.settings.current.history_size == 7
            assert value(REJECTED) == 0
    [line] = told(logs, "new settings rejected, the old ones stay in use")
    assert str(stage.file) in line["reason"]


async def test_file_that_became_invalid_while_the_node_started_is_told_and_followed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text("history_size = 5")
    stage = Stage(file)
    file.write_text("]")
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(stage.settings.run, stage.take)
            assert stage.settings.current.history_size == 5
            stage.write("history_size = 7")
            await trio.sleep(SOON_S)
            assert stage.settings.current.history_size == 7
            nursery.cancel_scope.cancel()
    assert len(told(logs, "new settings rejected, the old ones stay in use")) == 1


async def test_who_asks_to_reload_is_told_each_time_what_is_wrong(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as logs:
        async with following(tmp_path) as stage:
            stage.file.write_text("]")
            stage.settings.reload()
            stage.settings.reload()
    assert len(told(logs, "new settings rejected, the old ones stay in use")) == 2


async def test_who_asks_to_reload_is_told_in_one_line_that_nothing_changed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as logs:
        async with following(tmp_path) as stage:
            await trio.sleep(SOON_S)
            assert not logs, "nobody asked"
            stage.settings.reload()
            assert [one["event"] for one in logs] == ["settings read again: nothing changed"]
            assert not stage.taken


async def test_file_that_is_right_again_is_told_though_nothing_changed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as logs:
        async with following(tmp_path) as stage:
            stage.write("]")
            stage.settings.reload()
            stage.write("history_size = 5")
            await trio.sleep(SOON_S)
    assert [one["event"] for one in logs] == [
        "new settings rejected, the old ones stay in use",
        "settings read again: nothing changed",
    ]


async def test_settings_that_are_rejected_are_told_by_the_node_not_by_certificates(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(reloading, "log", log)
    async with following(tmp_path) as stage:
        stage.file.write_text("]")
        stage.settings.reload()
    [call] = log.calls
    assert call.method_name == "error"
    assert set(call.kwargs) == {"reason"}


async def test_file_that_is_gone_or_moves_as_in_kubernetes_is_followed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    for size in (5, 6, 7):
        (tmp_path / f"..{size}").mkdir()
        (tmp_path / f"..{size}" / "noti.toml").write_text(f"history_size = {size}")
    data, file = tmp_path / "..data", tmp_path / "noti.toml"
    data.symlink_to("..5")
    file.symlink_to("..data/noti.toml")
    stage = Stage(file)
    async with trio.open_nursery() as nursery:
        await nursery.start(stage.settings.run, stage.take)
        for target, size in (("..6", 6), ("..gone", 6), ("..7", 7)):
            (tmp_path / "..data_tmp").symlink_to(target)
            (tmp_path / "..data_tmp").replace(data)
            await trio.sleep(SOON_S)
            assert stage.settings.current.history_size == size
            assert value(REJECTED) == (target == "..gone")
        nursery.cancel_scope.cancel()


async def test_settings_that_a_part_refuses_are_not_taken_for_current(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with following(tmp_path) as stage:
        stage.refuses = True
        stage.write("history_size = 6")
        await trio.sleep(SOON_S)
        assert stage.settings.current.history_size == 5
        stage.refuses = False
        stage.settings.reload()
        assert stage.settings.current.history_size == 6


async def test_part_that_fails_for_another_reason_ends_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with following(tmp_path) as stage:
        stage.taken = None  # type: ignore[assignment]
        stage.file.write_text("history_size = 6")
        stage.settings.reload()
        assert stage.settings.current.history_size == 5
        stage.taken = []
        stage.settings.reload()
        assert stage.settings.current.history_size == 6


async def test_what_needs_a_restart_is_told_in_one_line(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with capture_logs() as logs:
        async with following(tmp_path) as stage:
            stage.write('history_size = 5\nname = "other"\nweb_workers = 3')
            await trio.sleep(SOON_S)
            assert not stage.taken
            assert value(WAITING) == 2
            stage.write("history_size = 5")
            await trio.sleep(SOON_S)
            assert value(WAITING) == 0
    [line] = told(logs, "settings that changed count only after a restart")
    assert line["settings"] == ["name", "web_workers"]


async def test_reloading_without_a_file_says_that_there_is_none() -> None:
    settings = SettingsFile(Config(name="a"), lambda: Config(name="b"), None)
    with capture_logs() as logs:
        settings.reload()
    assert "there is no file" in logs[0]["event"]


async def answer(node: NodeProcess, origin: str = "https://app.example") -> httpx.Response:
    url = f"http://{written(node.http)}/.well-known/mercure?topic=t&lastEventID=earliest"
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", url, headers={"Origin": origin}, timeout=LIMIT_S) as response,
    ):
        return response


async def metrics_of(node: NodeProcess) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://{written(node.ops)}/metrics", timeout=LIMIT_S)
    return response.text


@promises.SETTINGS_CHANGE_WHOLE_OR_NOT
@pytest.mark.interop
@pytest.mark.parametrize("workers", ["0", "1"])
async def test_running_node_goes_by_its_file_when_it_changes_or_at_sighup(
    workers: str, tmp_path: Path
) -> None:
    file = tmp_path / "noti.toml"
    file.write_text("anonymous = true")
    key = tmp_path / "jwt.key"
    key.write_text("s" * 32)
    key.chmod(0o644)
    with trio.fail_after(LIMIT_S):
        async with running_node(
            tmp_path,
            *("--config", str(file), "--publisher-jwt-key-file", str(key)),
            *("--web-workers", workers, "--log-format", "json"),
        ) as node:
            response = await answer(node)
            assert response.status_code == 200
            assert "access-control-allow-origin" not in response.headers
            file.write_text('anonymous = true\ncors_origins = ["https://app.example"]')
            node.signal(signal.SIGHUP)
            while "access-control-allow-origin" not in (await answer(node)).headers:  # noqa: ASYNC110
                await trio.sleep(0.05)
            file.write_text(
                'anonymous = false\nmembers_max = 64\nlog_level = "debug"\n'
                "sse_clients_max = 7\nrpc_connections_max = 8\nhistory_size = 9"
            )
            while (await answer(node)).status_code != 401:  # noqa: ASYNC110
                await trio.sleep(0.05)
            shown = (await metrics_of(node)).splitlines()
            assert "noti_streams_clients_max 7.0" in shown
            assert 'noti_connections_max{listener="rpc"} 8.0' in shown
            while "HistoryLimits(count=9," not in node.log_text():  # noqa: ASYNC110
                await trio.sleep(0.05)
            os.kill(node.pid, signal.SIGTERM)
            assert await node.wait() == 0
    lines = [json.loads(line) for line in node.log_text().splitlines()]
    assert told(
        lines,
        f"setting publisher_jwt_key_file: everybody on this machine can read {key}: "
        f"chmod 600 {key}",
    )
    first, second = told(lines, "settings changed")
    assert first["cors_origins"] == ["https://app.example"]
    assert second["anonymous"] is False
    assert second["cors_origins"] == []
    [waiting] = told(lines, "settings that changed count only after a restart")
    assert waiting["settings"] == ["members_max"]
    assert any(line["level"] == "debug" for line in lines)
