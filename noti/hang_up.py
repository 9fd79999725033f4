"""Survives SIGHUP before a node can do what it asks for.

Imports next to nothing, as it comes before all else.
"""

import os
import signal
from types import FrameType
from typing import Final

_STANDARD: Final = (0, 1, 2)
"""Descriptors of standard input, output and error, of which some may be redirected."""


def in_terminal() -> bool:
    """Whether this is a terminal's process; false, too, when that was closed."""
    return any(map(os.isatty, _STANDARD))


def hold_off() -> None:
    """Let SIGHUP end the process only if its terminal was closed, until there is another handler.

    Settings are read later anyway. Who ignores the signal, as `nohup` makes its command do, goes on
    ignoring it; a second call changes nothing.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        return
    began_in_terminal = in_terminal()

    def heard(number: int, _frame: FrameType | None) -> None:
        if began_in_terminal and not in_terminal():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(signal.SIGHUP, heard)
