"""The soak itself, for as long as it takes to begin: `just soak minutes=2` is the whole of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.interop.processes import is_running
from tests.interop.test_rehearsal import descendants_of

COMMAND = [sys.executable, "-m", "tests.soak", "minutes=5", "clients=6"]
ROOT = Path(__file__).parents[2]
END_S_MAX = 40
GONE_S_MAX = 10

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.mark.parametrize(
    ("number", "namespaces"),
    [
        (signal.SIGTERM, 0),
        pytest.param(signal.SIGINT, 1, marks=[pytest.mark.namespaces, pytest.mark.iproute2]),
    ],
)
def test_soak_that_is_ended_leaves_no_process(
    number: signal.Signals, namespaces: int, tmp_path: Path
) -> None:
    command = [*COMMAND, f"namespaces={namespaces}"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,  # its files go below the current directory
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert "3 nodes, 6 browsers that read" in process.stdout.readline()
        started = descendants_of(process.pid)
        assert len(started) >= 8, "nodes, log writers, browsers, nats-server"
        process.send_signal(number)
        process.wait(END_S_MAX)
    assert process.returncode in (130, -number)
    deadline = time.monotonic() + GONE_S_MAX
    while any(map(is_running, started)):
        assert time.monotonic() < deadline, "something still runs"
        time.sleep(0.01)


def test_arguments_that_mean_nothing_are_refused_in_one_line() -> None:
    for wrong in ("minutes=x", "hours=2", "nodes=2", "clients=0"):
        command = [*COMMAND, wrong]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert ended.returncode == 1
        assert ended.stderr.startswith("just soak: ")
        assert len(ended.stderr.splitlines()) == 1
