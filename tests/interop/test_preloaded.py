"""Processes that are forked off, as those that tests take them for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from noti import __version__
from tests.interop.preloaded import PreloadedChild
from tests.interop.processes import NodeProcess, is_running, run_to_end

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["run", "--colour"], 2)])
async def test_it_ends_and_says_what_the_command_does(
    tmp_path: Path, arguments: list[str], status: int
) -> None:
    command = [sys.executable, "-m", "noti", *arguments]
    loaded = run_to_end(command)
    child = PreloadedChild("noti", arguments, tmp_path / "log")
    for _ in range(2):
        child.start()
        assert await child.wait() == loaded.returncode == status
    assert (tmp_path / "log").read_text() == (loaded.stdout + loaded.stderr) * 2
    assert __version__ in loaded.stdout or status


async def test_a_node_is_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTI_NAME", "mine")
    monkeypatch.chdir(tmp_path)
    node = NodeProcess("single", tmp_path)
    try:
        node.start()
        await node.until_up()
        assert await trio.Path(f"/proc/{node.pid}/cwd").readlink() == trio.Path(tmp_path)
        assert os.getsid(node.pid) == node.pid
        assert '"name": "single"' in node.log_text()
        await node.kill()
        assert await node.wait() == -signal.SIGKILL
        assert not is_running(node.pid)
    finally:
        await node.destroy()


def test_none_outlives_who_started_it(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from tests.interop.preloaded import PreloadedChild\n"
        "child = PreloadedChild('tail', ['tail', 'http://127.0.0.1:1'], Path('log'))\n"
        "child.start()\n"
        "print(child.pid)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    pid = int(ended.stdout)
    for _ in range(500):
        if not is_running(pid):
            return
        time.sleep(0.01)
    pytest.fail("it runs on")
