"""Lets `python -m noti` be the `noti` command, and does nothing else."""

import signal

# Ctrl-C while modules are loaded ends the process without a word; `main` has it raise again.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from noti.cli import main  # noqa: E402

main()
