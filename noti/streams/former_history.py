"""Counts what is not history any more, and is held for clients that have not got it yet.

Events leave history from its old end, nearly in order; some that outlived the others leave later.
How much is held for a client is asked more often than that changes, so it is kept as running sums.
"""

from bisect import bisect_right
from itertools import accumulate

LATE_MAX = 500
"""Events out of order that are looked through one by one before the sums are made anew."""


class FormerHistory:
    """Numbers of events, in order, and how many bytes those behind any of them take."""

    def __init__(self) -> None:
        self._seqs: list[int] = []
        self._through: list[int] = []
        """Bytes up to each of them, and of some that are gone."""
        self._before = 0
        """Those of what is gone, and counted there, up to the first of them."""
        self._first = 0
        """Those before this index are gone."""
        self._late: dict[int, int] = {}
        """Bytes of those that belong between the others."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._seqs) - self._first + len(self._late)

    def __contains__(self, seq: int) -> bool:
        at = bisect_right(self._seqs, seq)
        return (at > self._first and self._seqs[at - 1] == seq) or seq in self._late

    def add(self, seq: int, size_bytes: int) -> None:
        """Note an event that has left history."""
        self.size_bytes += size_bytes
        if self._seqs and seq < self._seqs[-1]:
            self._late[seq] = size_bytes
            if len(self._late) > LATE_MAX:
                self._put_in_order()
        else:
            self._through.append(
                size_bytes + (self._through[-1] if self._through else self._before)
            )
            self._seqs.append(seq)

    def beyond(self, after_seq: int) -> int:
        """Return how many bytes the events behind a number take."""
        if not self.size_bytes:
            return 0
        late_bytes = sum(size for seq, size in self._late.items() if seq > after_seq)
        at = max(bisect_right(self._seqs, after_seq), self._first)
        if at == len(self._seqs):
            return late_bytes
        return self._through[-1] - (self._through[at - 1] if at else self._before) + late_bytes

    def between(self, after_seq: int, last_seq: int) -> list[int]:
        """Return those behind a number, up to another one, in order."""
        first = max(bisect_right(self._seqs, after_seq), self._first)
        seqs = self._seqs[first : bisect_right(self._seqs, last_seq)]
        if self._late:
            seqs += [seq for seq in self._late if after_seq < seq <= last_seq]
            seqs.sort()
        return seqs

    def take(self, through_seq: int, count: int) -> list[int]:
        """Forget the first ones up to a number, and at most so many; return them, in order."""
        if not self.size_bytes:
            return []
        if self._late:
            self._put_in_order()
        first = self._first
        last = min(bisect_right(self._seqs, through_seq), first + count)
        if last <= first:
            return []
        taken = self._seqs[first:last]
        self.size_bytes = self._through[-1] - self._through[last - 1]
        self._first = last
        if 2 * last > len(self._seqs):
            self._before = self._through[last - 1]
            del self._seqs[:last], self._through[:last]
            self._first = 0
            if not self._seqs:
                self.size_bytes = 0
        return taken

    def clear(self) -> None:
        """Forget all of them."""
        self._seqs.clear()
        self._through.clear()
        self._late.clear()
        self._first = self._before = self.size_bytes = 0

    def _put_in_order(self) -> None:
        sizes = dict(self._late)
        before = self._through[self._first - 1] if self._first else self._before
        for seq, through in zip(
            self._seqs[self._first :], self._through[self._first :], strict=True
        ):
            sizes[seq] = through - before
            before = through
        self._seqs = sorted(sizes)
        self._through = list(accumulate(sizes[seq] for seq in self._seqs))
        self._late.clear()
        self._first = self._before = 0
