"""Frames of events: each is built once for all who are sent it, and kept while it is in use.

What is sent is new as a rule, so the newest frames are kept, bounded by bytes. Keeping those of all
history would double what history takes.
"""

from typing import assert_never

from noti.history.notification import Notification
from noti.streams import sse
from noti.streams.audience import View
from noti.streams.framing import Framing

FRAMES_BYTES_MAX = 64 * 1024 * 1024
"""Of each view in one framing: a history of 100,000 small events. A reader who is further behind
than this is sent frames built for him alone, at 3 to 4 us an event instead of 1.2: many such fall
back for good."""
FRAME_BYTES = 150
"""What a frame takes beside its bytes."""


class Frames:
    """The frames of one view in one framing."""

    def __init__(self, view: View, framing: Framing) -> None:
        self._view = view
        self._framing = framing
        self._newer: dict[int, bytes | None] = {}
        """Those that were asked for lately, by number; None for what the view does not show."""
        self._older: dict[int, bytes | None] = {}
        """Those asked for before; when the newer ones take half of all bytes, these are dropped."""
        self._newer_bytes = 0

    def of(self, notification: Notification) -> bytes | None:
        """Return the frame of an event; None when it is not shown."""
        seq = notification.seq
        if seq in self._newer:
            return self._newer[seq]
        older = self._older
        frame = older[seq] if older and seq in older else self._frame(notification)
        self._newer[seq] = frame
        self._newer_bytes += FRAME_BYTES + (len(frame) if frame is not None else 0)
        if self._newer_bytes > FRAMES_BYTES_MAX // 2:
            self._older, self._newer, self._newer_bytes = self._newer, {}, 0
        return frame

    def clear(self) -> None:
        """Forget all frames."""
        self._newer.clear()
        self._older.clear()
        self._newer_bytes = 0

    def _frame(self, notification: Notification) -> bytes | None:
        match self._view:
            case View.MERCURE:
                text: str | None = notification.data
            case View.CATEGORY:
                text = sse.category_text(notification.data)
            case _:
                assert_never(self._view)
        if text is None:
            return None
        return self._framing.event(notification, text)
