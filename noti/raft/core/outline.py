"""What is known of every entry of a log without having it: its term, and what lies behind it.

Enters: entries, one after the other. Leaves: terms; where the last so many bytes begin.
Never: data of entries, disk.

Terms only ever rise, and seldom, so they are kept as runs; sizes only have to be right within
`MARK_BYTES`.
"""

from bisect import bisect_left, bisect_right

from noti.raft.core.messages import Entry

MARK_BYTES = 256 * 1024
"""How exact sizes are: far below any bound on a log, and a mark for each is nothing."""


class Outline:
    """Entries from one after a base on."""

    def __init__(self, base_index: int = 0, base_term: int = 0) -> None:
        """Begin with no entry after this one."""
        self.base_index = base_index
        """Index of the entry before the first; its term is known, and nothing else of it."""
        self.last_index = base_index
        self.size_bytes = 0
        """Data of all entries, about; what went before the base counts as well."""
        self._starts = [base_index]
        """Where each run of one term begins …"""
        self._terms = [base_term]
        """… and its term."""
        self._marks: list[tuple[int, int]] = []
        """(index, bytes up to that entry)."""

    def copy(self) -> "Outline":
        """Return one that changes for itself."""
        copied = Outline()
        copied.base_index, copied.last_index = self.base_index, self.last_index
        copied.size_bytes = self.size_bytes
        copied._starts, copied._terms = self._starts.copy(), self._terms.copy()
        copied._marks = self._marks.copy()
        return copied

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the base."""
        return self._terms[-1]

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`; None before the base and after the last."""
        if not self.base_index <= index <= self.last_index:
            return None
        if index >= self._starts[-1]:
            return self._terms[-1]
        return self._terms[bisect_right(self._starts, index) - 1]

    def append(self, entry: Entry) -> None:
        """Note the next entry."""
        self.last_index = entry.index
        self.size_bytes += entry.size_bytes
        if entry.term != self._terms[-1]:
            self._starts.append(entry.index)
            self._terms.append(entry.term)
        marked = self._marks[-1][1] if self._marks else 0
        if self.size_bytes - marked >= MARK_BYTES:
            self._marks.append((entry.index, self.size_bytes))

    def truncate_from(self, index: int) -> None:
        """Forget the entry at `index` and all after it."""
        assert index > self.base_index
        if index > self.last_index:
            return
        self.last_index = index - 1
        while self._starts[-1] >= index:
            self._starts.pop()
            self._terms.pop()
        while self._marks and self._marks[-1][0] >= index:
            self.size_bytes = self._marks.pop()[1]
        self.size_bytes = min(self.size_bytes, self._marks[-1][1] if self._marks else 0)

    def rebase(self, index: int) -> None:
        """Forget what is before the entry at `index`, which becomes the base."""
        assert self.base_index <= index <= self.last_index
        run = bisect_right(self._starts, index) - 1
        del self._starts[:run], self._terms[:run]
        self._starts[0] = index
        self.base_index = index
        passed = bisect_right(self._marks, index, key=lambda mark: mark[0])
        del self._marks[: max(0, passed - 1)]

    def base_of_last(self, size_bytes: int) -> int:
        """Return the lowest index with about `size_bytes` of data, at most, after it."""
        above = self.size_bytes - size_bytes
        if above <= 0:
            return self.base_index
        found = bisect_left(self._marks, above, key=lambda mark: mark[1])
        return self._marks[found][0] if found < len(self._marks) else self.last_index

    def last_index_with_term_at_most(self, index: int, term: int) -> int:
        """Return the highest index, up to `index`, whose term is not above `term`.

        The base, if there is none.
        """
        run = bisect_right(self._terms, term)
        end = self._starts[run] - 1 if run < len(self._starts) else self.last_index
        return min(index, max(self.base_index, end))
