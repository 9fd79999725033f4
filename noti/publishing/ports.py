"""How events reach the log, as those who take them from publishers see it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from noti.errors import NotiError


class Draft(NamedTuple):
    """An event as a publisher sends it: not checked, not ordered."""

    topics: tuple[str, ...]
    """First is canonical."""
    data: str
    id: str | None = None
    """None: this node makes one."""


Outcome: TypeAlias = tuple[str, ...] | NotiError
"""What became of drafts: the ids of the events, all of them committed; or why they are not."""


class Publishing(Protocol):
    """The way of events into the log."""

    def submit(
        self, drafts: Sequence[Draft], done: Callable[[Outcome], None], *, at_once: bool = False
    ) -> None:
        """Have events committed, in the order of the calls; never waits.

        With `at_once` it is not kept back for others that may come in this turn.

        `done` is called once, maybe before this returns, with the ids or with: `MessageInvalid`
        for a draft that can never be an event, `ProposalRefused` when too much waits already,
        `ProposalUncertain` when some may or may not be committed, otherwise `Unavailable`. Only
        after `ProposalUncertain` may any of the drafts be committed.
        """
