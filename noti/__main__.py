"""Lets `python -m noti` be the `noti` command.

Enters: the command line. Leaves: the process. Never: anything else.
"""

from noti.cli import main

main()
