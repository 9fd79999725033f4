"""The chart without Kubernetes: its pods as processes in networks of their own (`rehearsal/`)."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import promises
from tests.interop.processes import children_of, is_running

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.helm,
    pytest.mark.iproute2,
    pytest.mark.namespaces,
    pytest.mark.nginx,
]

COMMAND = [sys.executable, "-m", "tests.interop.rehearsal"]
RUN_S_MAX = 240
"""It takes about a minute; this is for a machine that does much else."""
GONE_S_MAX = 10
"""The kernel kills what is left in the namespaces right after their first process has died."""


def descendants_of(pid: int) -> set[int]:
    """Return all processes below one."""
    found: set[int] = set()
    for child in children_of(pid):
        found |= {child} | descendants_of(child)
    return found


@promises.ROLLING_UPDATE_LOSES_NOTHING
def test_nothing_is_lost_when_all_pods_get_new_addresses_and_two_of_three_leave() -> None:
    """`just k8s-rehearsal`: install, rolling update, and scale-down, under load."""
    ended = subprocess.run(COMMAND, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    print(ended.stdout + ended.stderr)
    assert ended.returncode == 0
    assert "each once, in order, at each of 50 browsers" in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_rehearsal_that_is_ended_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert "pods are ready" in first
        started = descendants_of(process.pid)
        assert len(started) > 10, "pods, log writers, nginx, nats-server"
        process.send_signal(number)
        process.wait(RUN_S_MAX)
    deadline = time.monotonic() + GONE_S_MAX
    while any(map(is_running, started)):
        assert time.monotonic() < deadline, "something still runs"
        time.sleep(0.01)
    if number is signal.SIGTERM:
        assert list(tmp_path.iterdir()) == []
