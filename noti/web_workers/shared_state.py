"""The node's state machine, which tells web workers what it applies."""

from collections.abc import Iterator

import trio

from noti.history.store import Store
from noti.tracing.trail import EventTrail
from noti.web_workers.link import Link
from noti.web_workers.messages import Applied, Start, StateEnd, StatePiece, encode


class SharedState:
    """A store that nobody reads here; what Raft calls its `StateMachine` (`noti.raft.ports`).

    All commands of one turn of the scheduler are told together, encoded once for all workers.
    """

    def __init__(self, store: Store, trail: EventTrail) -> None:
        self._store = store
        self.trail = trail
        """What is known of the events that were applied of late."""
        self._links: set[Link] = set()
        self._untold: list[bytes] = []
        self._untold_indexes: list[int] = []
        self._work = trio.Event()

    # --- Raft's side ------------------------------------------------------------------------------

    def apply(self, command: bytes, log_index: int = 0) -> None:
        """Carry out one committed command; raises what `Store.apply` raises."""
        visible = self._store.apply(command)
        if visible:
            self.trail.applied(log_index, visible, self._store.published)
        # Whoever shows what it has changed does so at the workers.
        self._store.subscriptions.take_disconnected()
        self._store.revocations.take_news()
        if self._links:
            self._untold.append(command)
            self._untold_indexes.append(log_index)
            self._work.set()

    def snapshot_pieces(self) -> Iterator[bytes]:
        """Return the store's whole state as it is now, encoded piece by piece."""
        return self._store.snapshot_pieces()

    def restore(self, state: object) -> None:
        """Replace the store's state, also at the workers."""
        assert isinstance(state, Store)
        self._store.restore(state)
        self._store.revocations.take_news()
        self._untold.clear()
        self._untold_indexes.clear()
        for link in self._links:
            self._tell_all(link)

    # --- the workers' side ------------------------------------------------------------------------

    def join(self, link: Link, start: Start) -> None:
        """Tell a worker all there is, and all that is applied from now on."""
        self.flush()
        link.send(start)
        self._tell_all(link)
        self._links.add(link)

    def leave(self, link: Link) -> None:
        """Tell a worker nothing more."""
        self._links.discard(link)

    def flush(self) -> None:
        """Tell what was applied; never waits."""
        if not self._untold:
            return
        told = encode(Applied(self._untold, self._untold_indexes))
        self._untold, self._untold_indexes = [], []
        for link in self._links:
            link.send_encoded(told)

    async def run(self) -> None:
        """Tell what is applied, in the turn after, until cancelled."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            self.flush()

    def _tell_all(self, link: Link) -> None:
        pieces = self._store.snapshot_pieces()
        link.send_each(encode(StatePiece(piece)) for piece in pieces)
        link.send(StateEnd())
