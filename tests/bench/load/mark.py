"""The mark that a published event carries: which run, which number, when it was published.

Enters: numbers. Leaves: the text of an event, and the marks found in received bytes.
Never: I/O, clocks.

A mark survives whatever a server does around it: JSON escapes, another field order, a frame.
"""

import re
from dataclasses import dataclass
from typing import Final

EVENT_BYTES: Final = 150
"""Length of an event's data, where the caller names no other."""

_MARK: Final = re.compile(rb"~([0-9a-f]+)\.([0-9]+)\.([0-9]+)~")


@dataclass(frozen=True, slots=True)
class Mark:
    """What an event says about itself."""

    run: str
    """Hexadecimal digits; events of other runs, out of the server's history, are not counted."""
    seq: int
    """1, 2, 3, … within the run."""
    at_ns: int
    """When it was published, ns of the monotonic clock, which all processes of a machine share."""

    def __str__(self) -> str:
        return f"~{self.run}.{self.seq}.{self.at_ns}~"


def event_text(mark: Mark, length: int = EVENT_BYTES) -> str:
    """Return the data of an event, `length` bytes of JSON or a little more if that is too few."""
    text = f'{{"mark":"{mark}","pad":""}}'
    return text[:-2] + "x" * (length - len(text)) + text[-2:]


def marks_of(run: str, data: bytes) -> list[tuple[int, int]]:
    """Return (seq, at_ns) of every mark of this run in `data`, in their order."""
    wanted = run.encode("ascii")
    return [(int(seq), int(at)) for its_run, seq, at in _MARK.findall(data) if its_run == wanted]
