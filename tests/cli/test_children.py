"""Child processes of a supervisor: they come back when they die, and never outlive it."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from noti.cli.children import Child, ending, keep_running, stop_all
from noti.die_with_parent import dying_with_us
from noti.errors import LocalError

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)",
]
HURRIED = [sys.executable, "-c", "print('no luck today'); raise SystemExit(3)"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; nothing in here could set an event."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def started(child: Child) -> Child:
    child.start()
    await until(lambda: child.last_line() == "up")
    return child


def is_running(pid: int) -> bool:
    """Tell whether a process lives; an unreaped one does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def test_a_child_has_a_session_of_its_own(tmp_path: Path) -> None:
    child = await started(Child("sleeper", SLEEP, tmp_path / "log"))
    try:
        assert os.getsid(child.pid) == child.pid
    finally:
        await child.stop(grace_s=10)
    assert not is_running(child.pid)


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = await started(Child("deaf", DEAF, tmp_path / "log"))
    await child.stop(grace_s=0.05)
    assert await child.wait() == -signal.SIGKILL


async def test_a_child_does_not_see_settings_in_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTI_NAME", "ours")
    script = "import os; print([name for name in os.environ if name.startswith('NOTI_')])"
    child = Child("curious", [sys.executable, "-c", script], tmp_path / "log")
    child.start()
    assert await child.wait() == 0
    assert child.last_line() == "[]"


async def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    child = await started(Child("sleeper", SLEEP, tmp_path / "log"))
    first, told = child.pid, list[str]()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_running, child, 0.01, told.append)
            os.kill(first, signal.SIGKILL)
            await until(lambda: len(told) == 2)
            nursery.cancel_scope.cancel()
        assert child.pid != first
        assert is_running(child.pid)
    finally:
        await stop_all([child], grace_s=10)
    assert told == [
        "sleeper died (SIGKILL); it comes back in 0.01 s",
        f"sleeper is back; to kill it again: kill -9 {child.pid}",
    ]


async def test_a_child_that_cannot_start_is_not_tried_again(tmp_path: Path) -> None:
    child = Child("hurried", HURRIED, tmp_path / "log")
    child.start()
    with pytest.raises(
        LocalError, match=r"hurried does not start: no luck today \(all of it: .*log"
    ):
        await keep_running(child, 0, print)


async def test_stopping_what_does_not_run_does_nothing(tmp_path: Path) -> None:
    never = Child("never", SLEEP, tmp_path / "never")
    gone = Child("gone", HURRIED, tmp_path / "gone")
    gone.start()
    await gone.wait()
    await stop_all([never, gone], grace_s=10)


def test_a_child_dies_with_its_supervisor(tmp_path: Path) -> None:
    supervisor = """
        import sys, time
        from pathlib import Path
        from noti.cli.children import Child
        child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(99)"], Path("log"))
        child.start()
        print(child.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(supervisor)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    trio.run(until, lambda: not is_running(pid))


def test_a_child_starts_also_where_python_has_imported_little() -> None:
    # Modules of noti are named like some of the standard library, and lie beside this program.
    python, *arguments = dying_with_us("/bin/echo", "up")
    done = subprocess.run([python, "-S", *arguments], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"up\n"), done.stderr


def test_endings_are_named() -> None:
    assert ending(-signal.SIGKILL) == "SIGKILL"
    assert ending(1) == "exit status 1"
