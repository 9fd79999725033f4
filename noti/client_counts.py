"""Counts what each client has at a node, also where several processes serve the node's clients.

Enters: what begins and ends here; what others have counted. Leaves: how many of a client's there
are in all; whose numbers have changed here.
Never: I/O, clocks; clients of whom there is nothing any more.
"""

from collections import Counter
from collections.abc import Callable, Mapping


class ClientCounts:
    """How many of one kind each client has, by the key that stands for it."""

    def __init__(self) -> None:
        self._here: Counter[str] = Counter()
        self._elsewhere: dict[str, int] = {}
        self._changed: set[str] = set()
        self._changes: Callable[[], object] | None = None

    def of(self, client_key: str) -> int:
        """Return how many a client has, wherever."""
        return self._here[client_key] + self._elsewhere.get(client_key, 0)

    def __len__(self) -> int:
        """Return how many clients have any here."""
        return len(self._here)

    def add(self, client_key: str) -> None:
        """Count one that begins here."""
        self._here[client_key] += 1
        self._note(client_key)

    def remove(self, client_key: str) -> None:
        """Count one less, which ended here."""
        self._here[client_key] -= 1
        if not self._here[client_key]:
            del self._here[client_key]
        self._note(client_key)

    def set_elsewhere(self, counts: Mapping[str, int]) -> None:
        """Note how many these clients have in other processes."""
        for client_key, count in counts.items():
            if count:
                self._elsewhere[client_key] = count
            else:
                self._elsewhere.pop(client_key, None)

    # --- for those who tell others ----------------------------------------------------------------

    def tell(self, changes: Callable[[], object]) -> None:
        """Call `changes` when there is something for `take_changes`, from now on."""
        self._changes = changes

    def take_changes(self) -> dict[str, int]:
        """Return the clients whose number here has changed since the last call, and that number."""
        changed, self._changed = self._changed, set()
        return {client_key: self._here[client_key] for client_key in sorted(changed)}

    def _note(self, client_key: str) -> None:
        if self._changes is not None:
            self._changed.add(client_key)
            self._changes()
