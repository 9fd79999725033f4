"""Becomes another program that dies when the process that started it dies.

Enters: `PARENT_PID COMMAND ARGUMENT…` as arguments. Leaves: that command, in this process.
Never: imports from noti, so that it starts in milliseconds. Outside Linux it ties nothing.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""prctl(2). Survives exec, and follows the *thread* that forked: start us from the main one."""


def main() -> None:
    """Tie this process to its parent and exec the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit("tether: the parent died before we were tied to it")
    os.execv(command[0], command)  # noqa: S606 - the command is our own parent's


if __name__ == "__main__":
    main()
