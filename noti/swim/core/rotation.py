"""Decides to whom gossip goes next: all in turn, in an order of this node's own.

Enters: who may get gossip. Leaves: some of them, who have not had their turn for longest.
Never: what is sent; how often.

Members drawn by lot, as in SWIM and memberlist, would do in a large cluster, where each message is
passed on so often that hardly anyone is missed. In a small one it is sent a few times only: of four
Serf agents with the `local` profile, one misses one message in nine. In turn, whoever sends a
message as often as there are others sends it to each of them.
"""

import random
from collections.abc import Collection


class Rotation:
    """The turns of the others, as one node gives them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._order: list[str] = []
        """The next one first."""

    def next(self, names: Collection[str], count: int) -> list[str]:
        """Return up to `count` different ones of these `names`, in turn; a new one waits at random.

        Iterates over `names` in their order.
        """
        known = set(self._order)
        for name in names:
            if name not in known:
                self._order.insert(self._rng.randint(0, len(self._order)), name)
        if len(self._order) > len(names):
            self._order = [name for name in self._order if name in names]
        chosen, waiting = self._order[:count], self._order[count:]
        self._order = waiting + chosen
        return chosen
