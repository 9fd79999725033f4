"""Lets a busy task hold the loop for a slice of time, and then lets the rest of the node run:
consensus above all. It never sleeps.
"""

import trio


class TimeSlice:
    """One task's slices."""

    def __init__(self, slice_s: float) -> None:
        """A slice is `slice_s` seconds long."""
        self._slice_s = slice_s
        self._ends = 0.0

    def begin(self) -> None:
        """Begin a slice: the caller has just been at a checkpoint."""
        self._ends = trio.current_time() + self._slice_s

    async def checkpoint_if_over(self) -> None:
        """Let the rest of the node run when the slice is over. A checkpoint only then."""
        if trio.current_time() >= self._ends:
            await trio.lowlevel.checkpoint()
            self.begin()
