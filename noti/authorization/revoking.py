"""Revokes tokens in the whole cluster: by subject or id, through the log."""

from collections.abc import Awaitable, Callable
from typing import Final

from noti.history.commands import encode
from noti.history.revocations import Revoke
from noti.ports import Clock

REVOKE_FOR_S_MAX: Final = 366 * 86_400.0
"""Longer than tokens live; what lives longer needs another key."""


class Revoking:
    """The way from any node into the table of revocations."""

    def __init__(self, propose: Callable[[bytes], Awaitable[object]], clock: Clock) -> None:
        """`propose` returns when a command is committed, and applied on this node."""
        self._propose = propose
        self._clock = clock

    async def revoke(self, *, subject: str = "", token_id: str = "", for_s: float) -> None:
        """End the streams of a subject or a token, and refuse its tokens for a time.

        With a time of 0, streams only end: who has a token comes back with it. Returns when it is
        committed, and so holds on every node that has caught up. Raises what proposing raises:
        `Overloaded`, or `ProposalUncertain`, after which it may be repeated. *Cancellation*: it may
        happen, or not.
        """
        now_ms = self._clock.wall_ms()
        await self._propose(encode(Revoke(subject, token_id, now_ms + round(for_s * 1000), now_ms)))
