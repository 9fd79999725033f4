"""Is the `noti` command, also as `python -m noti`: what must hold before all else is loaded."""

import signal
import sys

# Ctrl-C while modules are loaded ends the process without a word; `main` has it raise again.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from noti import hang_up  # noqa: E402

# Loading takes a while, in which a node may be told already that its settings changed.
if sys.argv[1:2] == ["run"]:
    hang_up.hold_off()

from noti.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
