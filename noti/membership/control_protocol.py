"""What both ends of the control socket agree on; `control.py` describes requests and answers.

Imports next to nothing: a command that asks the node takes no longer to start than to be answered.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "control.sock"
LINE_BYTES_MAX: Final = 16 * 1024
"""A request holds a payload of Serf's, at most 9 KiB, in base64; an answer holds less."""
WITHIN_S_MAX: Final = 3600.0
"""How long a request may ask to be waited for."""
RELAY_FACTOR_MAX: Final = 255
"""Of a query: one byte on the wire."""


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """Yield a path of the socket that fits into the 108 bytes of an address, however long it is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
