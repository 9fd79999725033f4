"""Has a command committed, however often the leader changes meanwhile."""

import random
from typing import Final

from noti.backoff import Backoff
from noti.completion import Completion
from noti.errors import NotLeader, Unavailable
from noti.history.commands import Command, encode
from noti.ports import Clock
from noti.publishing.ports import CommandForwarder

ANSWER_WITHIN_S: Final = 10.0
"""After this nobody believes in an answer (`PublishLimits.commit_within_s`)."""
NEWS_WITHIN_S: Final = 1.0
"""A leader may have come without news; asking for one costs nothing."""


class Commits:
    """Commits commands that may be repeated without harm."""

    def __init__(self, log: CommandForwarder, clock: Clock, rng: random.Random) -> None:
        self._log = log
        self._clock = clock
        self._backoff = Backoff(rng, first_s=0.1, most_s=2.0)

    async def commit(self, command: Command) -> None:
        """Return once the command is committed, and applied on this node.

        It is repeated without end; whoever does not want to wait cancels. *Cancellation*: the
        command may be committed all the same.
        """
        encoded = encode(command)
        while True:
            completion: Completion[int] = Completion()
            self._log.submit(encoded, completion)
            try:
                with self._clock.scope_until(self._clock.now() + ANSWER_WITHIN_S):
                    await completion.wait()
                    self._backoff.succeeded()
                    return
            except NotLeader:
                with self._clock.scope_until(self._clock.now() + NEWS_WITHIN_S):
                    await self._log.wait_news()
            except Unavailable:
                await self._clock.sleep_until(self._clock.now() + self._backoff.failed())
