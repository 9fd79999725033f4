"""A source of events: a stream that is read in order, and acknowledged after the commit."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """One message of the source's stream."""

    seq: int
    """Sequence in the stream: stable across consumers and redelivery."""
    subject: str
    payload: bytes
    message_id: str | None
    """The publisher's id (`Nats-Msg-Id`), if it gave one."""
    token: object
    """The adapter's own handle; only it looks inside."""


@dataclass(frozen=True, slots=True)
class SourceLag:
    """How far a reader is behind, as far as it knows without asking."""

    pending: int
    """Messages that were not delivered to it yet."""
    unacknowledged: int
    """Messages that were, and are neither acknowledged nor terminated."""
    oldest_ms: int | None
    """When the oldest of these was published, in milliseconds of the wall clock."""


class SourceSession(Protocol):
    """A place in the source's stream, strictly in stream order. One session at a time in a cluster.

    Every method raises `SourceUnavailable` when the connection or the place is lost (also when
    somebody else took messages out of the same consumer, so that order could be broken); then open
    a new session.
    """

    @property
    def stream(self) -> str:
        """Identity of the stream, different after it was deleted and made again."""

    async def begin(self, after_seq: int) -> None:
        """Start reading.

        Everything unacknowledged above `after_seq` comes, again if need be, in order.
        """

    async def fetch(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        """Return the next messages in stream order, or none after `wait_s` seconds."""

    async def ack(self, messages: Sequence[SourceMessage]) -> None:
        """Tell the source that these are committed and need not come again."""

    async def terminate(self, message: SourceMessage) -> None:
        """Tell the source that this one can never be processed and must not come again."""

    def lag(self) -> SourceLag:
        """Return how far this reader is behind; at once, and never raises."""


class Source(Protocol):
    """Where events come from."""

    def open(self) -> AbstractAsyncContextManager[SourceSession]:
        """Connect, make the stream when missing; raises `SourceUnavailable`."""
