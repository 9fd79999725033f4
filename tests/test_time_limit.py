"""Every test ends (`tests/time_limit.py`), however it hangs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.processes import is_running

ROOT = Path(__file__).parents[1]
FILE = "tests/endless.py"
LIMIT_S = 0.8
RUN_S_MAX = 110
"""All of them, each for its limit and the steps behind it, on a busy machine."""
CI_RUN_S_MAX = 40
"""Its limit of 2 s, 10 s until it kills, and a busy machine."""

pytestmark = pytest.mark.slow

ENDED_ALONE = {
    "test_busy": "while True",
    "test_blocked_read": "ours.recv(1)",
    "test_joins_a_thread": "never.wait()",
    "test_waits_for_a_process": "subprocess.run",
    "test_examples": "time.sleep(1000",
    "test_fails_and_its_fixture_hangs": "threading.Event().wait()",
    "test_on_trio": "the one that hangs",
    "test_on_trio_in_a_clean_up": "await trio.sleep_forever()",
    "test_on_trio_busy": "while True",
    "test_on_trio_shielded": "await trio.sleep_forever()",
    "test_on_trio_swallows_cancellation": "await trio.sleep_forever()",
}
"""By name, what shows where each one hung."""


def run(*names: str) -> str:
    """Run tests of `endless.py`; return what pytest says. It must fail."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", str(LIMIT_S)]
    ended = subprocess.run(
        [*command, *(f"{FILE}::{name}" for name in names)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    print(ended.stdout)
    assert ended.returncode == 1
    return ended.stdout


def test_endless_tests_fail_at_their_limit_show_where_they_hang_and_the_run_goes_on() -> None:
    said = run(*ENDED_ALONE, "test_ends")
    for name, where in ENDED_ALONE.items():
        reports = re.findall(rf"(?s)__ (?:ERROR at \w+ of )?{name} __.*?(?=\n___|\n===)", said)
        tasks = re.findall(rf"(?s)::{name} ends here.*?(?=\ntests/|\n===|\n___)", said)
        assert f"the test reached its limit of {LIMIT_S} s" in "".join(reports), name
        assert where in "".join([*reports, *tasks]), name
    assert "1 passed" in said, "the one that ends, behind all the others"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("test_swallows_what_it_can", "in test_swallows_what_it_can"),
        ("test_holds_the_interpreter", "in test_holds_the_interpreter"),
        ("test_on_trio_in_a_thread", "await trio.to_thread.run_sync"),
    ],
)
def test_test_that_nothing_ends_shows_where_it_hangs_and_ends_with_the_run(
    name: str, where: str
) -> None:
    said = run(name)
    assert "Timeout (0:00:0" in said
    assert where in said


def test_ci_run_ends_at_its_limit_reports_it_and_leaves_no_process(tmp_path: Path) -> None:
    """Everything that it would install or check is replaced by something that never ends."""
    for program in ("apt-get", "chromium", "ip", "npm", "openssl"):
        _put(tmp_path / program, "exit 0")
    _put(tmp_path / "just", f"sleep 1000 & echo $! >{tmp_path}/pid; wait; wait")
    # This test itself may run below .ci/run.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CI_")}
    process = subprocess.Popen(
        [ROOT / ".ci/run"],
        env={**inherited, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CI_LIMIT_S": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=CI_RUN_S_MAX)
        assert process.returncode == 124
        assert "took longer than 2 s" in said
        assert not is_running(int((tmp_path / "pid").read_text()))
    finally:
        process.terminate()  # it ends what it started
        process.communicate()


def _put(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
