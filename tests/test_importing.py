"""Promises of how commands import modules."""

import signal
import threading

from noti.importing import importing


def test_ctrl_c_ends_the_process_at_once_while_modules_are_imported() -> None:
    before = signal.getsignal(signal.SIGINT)
    with importing():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_may_import_too() -> None:
    done: list[bool] = []

    def load() -> None:
        with importing():
            done.append(True)

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert done == [True]
