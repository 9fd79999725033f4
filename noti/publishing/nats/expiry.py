"""Tells of messages that a stream deleted before they were read: once, and never hides it.

Only a stream with retention by limits is watched: others delete what was acknowledged.
"""

from collections.abc import Sequence
from typing import Final

import structlog
from nats.js import api
from prometheus_client import Counter

from noti.publishing.nats.ports import SourceMessage
from noti.publishing.nats.settings import NatsSettings
from noti.stream_settings import subject_covers

log = structlog.get_logger("noti.publishing")

EXPIRED: Final = Counter(
    "noti_source_expired_total",
    "Messages that a stream deleted before this node read them; where others share the stream,"
    " perhaps theirs.",
    ["stream"],
)


class Expiry:
    """What is missing between one place in a stream and the next; for all sessions of a source."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        EXPIRED.labels(settings.stream)  # from zero, as alerts see only what grows
        self._place = 0
        self._is_exact = False
        self._told: tuple[str, int] = ("", 0)
        """Stream, and up to which sequence the missing were told."""

    def begin(self, identity: str, info: api.StreamInfo, after_seq: int) -> None:
        """Start behind `after_seq`; 0 is no place that anybody had reached."""
        carried = info.config.subjects or []
        self._is_exact = info.config.mirror is None and not info.config.sources
        for other in carried:
            # Otherwise, a sequence that does not come belongs to a subject that is not read.
            if not any(subject_covers(ours, other) for ours in self._settings.subjects):
                self._is_exact = False
        if self._told[0] != identity:
            self._told = (identity, 0)
        self._place = after_seq
        first_seq = info.state.first_seq
        if after_seq and first_seq > after_seq + 1:
            self._tell(first_seq - 1)
        self._place = max(after_seq, first_seq - 1)

    def note(self, messages: Sequence[SourceMessage]) -> None:
        """Note what came, in order."""
        if self._is_exact:
            for message in messages:
                if message.seq > self._place + 1:
                    self._tell(message.seq - 1)
                self._place = message.seq

    def _tell(self, last_seq: int) -> None:
        identity, told_seq = self._told
        first_seq = max(self._place, told_seq) + 1
        if first_seq > last_seq:
            return
        self._told = (identity, last_seq)
        EXPIRED.labels(self._settings.stream).inc(last_seq - first_seq + 1)
        log.error(
            "the stream deleted messages before they were read",
            stream=self._settings.stream,
            first_seq=first_seq,
            last_seq=last_seq,
            perhaps_of_others=not self._is_exact,
        )
