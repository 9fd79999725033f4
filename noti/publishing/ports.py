"""How events reach the log, as those who take them from publishers see it; and the log itself.

A new way in makes `Draft`s of what it takes, calls `Publishing.submit`, and maps the error that
`on_done` may get to its own protocol, as `status_of` in `noti.rpc.publish_service` does for gRPC.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from noti.completion import OnDone
from noti.errors import NotiError


class Draft(NamedTuple):
    """An event as a publisher sends it: not checked, not ordered."""

    topics: tuple[str, ...]
    """First is canonical."""
    data: str
    id: str | None = None
    """None: this node makes one."""
    type: str = ""
    retry_ms: int = 0
    private: bool = False
    idempotency_key: str = ""
    trace: str = ""
    """See `Event.trace`."""


Outcome: TypeAlias = tuple[str, ...] | NotiError
"""What became of drafts: the ids of the events, all of them committed; or why they are not."""


class Publishing(Protocol):
    """The way of events into the log."""

    def submit(
        self, drafts: Sequence[Draft], on_done: OnDone[tuple[str, ...]], *, at_once: bool = False
    ) -> None:
        """Have events committed, in the order of the calls; never waits.

        With `at_once` it is not kept back for others that may come in this turn.

        `on_done` gets the ids once all are committed, or `MessageInvalid` for a draft that can
        never be an event, `Overloaded` when too much waits already, `ProposalUncertain` when
        some may or may not be committed, otherwise `Unavailable`. Only after `ProposalUncertain`
        may any of the drafts be committed; and after `IdempotencyKeyReused`, which says which.
        """


class CommandForwarder(Protocol):
    """The replicated log, wherever its leader is."""

    def submit(self, command: bytes, on_done: OnDone[int]) -> None:
        """Have a command committed, in the order of the calls.

        `on_done` gets its index once it is committed, and applied on this node; `NotLeader` or
        `Overloaded` when it was not appended; `ProposalUncertain` when it may or may not be
        committed.
        """

    async def wait_news(self) -> None:
        """Return when there may be another leader."""


class Proposer(Protocol):
    """The replicated log, as its leader sees it."""

    def is_ready_leader(self) -> bool:
        """Whether this node leads and has applied everything of its predecessors."""

    async def wait_leadership_changed(self) -> None:
        """Return at the next change of `is_ready_leader()`."""

    async def propose(self, command: bytes) -> None:
        """Return once `command` is committed, and applied on this node.

        Raises `NotLeader` and `Overloaded` when it was not appended, `ProposalUncertain` when
        it may or may not be committed later.
        """
