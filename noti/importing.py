"""Imports modules while a command runs, so that Ctrl-C cannot get lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Let Ctrl-C end the process at once, without a word, while the body imports.

    Python loses a `KeyboardInterrupt` that is raised within what cleans up after imports. Changes
    nothing outside of the main thread, where no signal is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
