"""Becomes another program that dies when the process that started it dies (on Linux).

Arguments: `PARENT_PID COMMAND ARGUMENT…`. It imports nothing from noti, so that it starts in
milliseconds.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl(2). Survives exec, and follows the *thread* that forked: start us from the main one."""


def dying_with_us(*command: str) -> list[str]:
    """Return the command line of a child that dies with this process.

    Without `-P`, this file's folder would come first on the path, and its `operator`, `http` and
    `token` before those of the standard library.
    """
    return [sys.executable, "-P", __file__, str(os.getpid()), *command]


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, which has this id, dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("die_with_parent: the parent was dead already")


def main() -> None:
    """Become the command, which dies with the parent."""
    parent, *command = sys.argv[1:]
    die_with(int(parent))
    os.execv(command[0], command)  # noqa: S606 - the command is our own parent's


if __name__ == "__main__":
    main()
