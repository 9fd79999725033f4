"""A source of events: a stream that is read in order, and acknowledged after the commit."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

Headers: TypeAlias = Mapping[str, Sequence[str]]
"""Names in lower case -> values in their order, one at least."""

NO_HEADERS: Final[Headers] = {}


class SourceMessage(NamedTuple):
    """One message of the source's stream."""

    seq: int
    """Sequence in the stream: stable across consumers and redelivery."""
    subject: str
    payload: bytes
    headers: Headers = NO_HEADERS
    published_ms: int = 0
    """When the source took it, in milliseconds of its wall clock."""
    token: object = None
    """The adapter's own handle; only it looks inside."""


class DeadLetter(NamedTuple):
    """A message that can never be an event."""

    message: SourceMessage
    reason: str
    """Why, in one line."""


@dataclass(frozen=True, slots=True)
class SourceLag:
    """How far a reader is behind, as far as it knows without asking."""

    pending: int
    """Messages that were not delivered to it yet."""
    unacknowledged: int
    """Messages that were, and are neither acknowledged nor terminated."""
    oldest_ms: int | None
    """When the oldest of these was published, in milliseconds of the wall clock."""
    trouble: str | None = None
    """Why nothing comes, in one line, where the source said so and the session goes on."""


class SourceSession(Protocol):
    """A place in the source's stream, strictly in stream order. One session at a time in a cluster.

    Every method raises `SourceUnavailable` when the connection or the place is lost (also when
    somebody else took messages out of the same consumer, so that order could be broken); then open
    a new session.
    """

    @property
    def stream(self) -> str:
        """Identity of the stream, different after it was deleted and made again."""

    @property
    def acknowledges(self) -> bool:
        """Whether the source keeps each message until it is acknowledged.

        Otherwise the place of the next session is its `after_seq` alone, and `ack` does nothing.
        """

    async def begin(self, after_seq: int) -> None:
        """Start reading.

        Everything unacknowledged above `after_seq` comes, again if need be, in order.
        """

    async def fetch(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        """Return the next messages in stream order, or none after `wait_s` seconds."""

    async def ack(self, messages: Sequence[SourceMessage]) -> None:
        """Tell the source that these are committed and need not come again."""

    async def dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        """Put these where operators find them, and have them never come again."""

    def lag(self) -> SourceLag:
        """Return how far this reader is behind; at once, and never raises."""


class Source(Protocol):
    """Where events come from."""

    def open(self) -> AbstractAsyncContextManager[SourceSession]:
        """Connect, make the stream when missing; raises `SourceUnavailable`."""
