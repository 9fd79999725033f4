"""Tells a disk that hangs from one that works.

Enters: what the disk was asked for, and what it has done, each with the time. Leaves: since when it
hangs. Never: I/O; what to do about it.

A cloud volume can give neither success nor error for a minute. Nothing but time shows that: the
disk hangs when it owes an answer and has given none for two election timeouts.
"""

PATIENCE_ELECTION_TIMEOUTS = 2.0
"""A sync that takes as long as an election is slow; one that takes two holds everybody up for
longer than a change of leader would."""


class DiskWatch:
    """One node's disk, seen from its core."""

    def __init__(self, election_timeout_s: float) -> None:
        """Begin with a disk that owes nothing."""
        self.hung_since: float | None = None
        """Since when an answer is missing, once that is too long; None while the disk works."""
        self._patience_s = PATIENCE_ELECTION_TIMEOUTS * election_timeout_s
        self._done = 0
        self._since: float | None = None
        """Since when the next answer is waited for."""

    def saw(self, *, ordered: int, done: int, now: float) -> None:
        """Note the newest batch that was ordered, and the newest that is done."""
        if ordered == done:
            self._since = self.hung_since = None
        elif self._since is None or done != self._done:
            self._since, self.hung_since = now, None
        self._done = done

    def deadline(self) -> float | None:
        """When `look` has something to find out; None when it has not."""
        if self._since is None or self.hung_since is not None:
            return None
        return self._since + self._patience_s

    def look(self, now: float) -> None:
        """Judge the disk, unless nobody was here to hear it.

        A process that was stopped for a while finds out late, and the answer may lie ready.
        """
        due = self.deadline()
        if due is None or now < due:
            return
        if now - due > self._patience_s / 2:
            self._since = now
        else:
            self.hung_since = self._since
