"""Decides with whom full state is exchanged over TCP, and when.

Enters: results of exchanges, members, now. Leaves: orders to exchange state.
Never: dialling; resolving names.

Each interval one member gets it, so that what gossip missed is repaired. Gossip alone never heals a
long partition, as nobody gossips to the dead (hashicorp/memberlist#222): seeds that are not live
members, and members that are dead, are dialled again and again.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from noti.backoff import Backoff
from noti.swim.core.events import ExchangeState
from noti.swim.core.members import Members
from noti.swim.core.messages import Address, MemberState
from noti.swim.core.timing import SwimConfig

_BASE_MEMBERS = 32
"""Above this size, exchanges with members become rarer (memberlist)."""


@dataclass(slots=True)
class _Seed:
    address: Address
    """As configured; the host may be a name, which is resolved at each dial."""
    due_at: float
    backoff: Backoff
    reached: Address | None = None
    """Which address answered last."""
    dialling: bool = False


class Exchanges:
    """One node's exchanges of state: with members, and with seeds and dead members to join them."""

    def __init__(
        self,
        name: str,
        seeds: Sequence[Address],
        *,
        members: Members,
        config: SwimConfig,
        rng: random.Random,
        now: float,
    ) -> None:
        self._name = name
        self._members = members
        self._config = config
        self._rng = rng
        first_s, most_s = config.seed_retry_min_s, config.reconnect_interval_s
        self._seeds = [
            _Seed(address, now, Backoff(rng, first_s=first_s, most_s=most_s)) for address in seeds
        ]
        self._seeds_due_at = now if self._seeds else math.inf
        self._dead_due_at = now + config.reconnect_interval_s
        self._push_pull_at = now + rng.uniform(0, config.push_pull_interval_s)

    def deadline(self) -> float:
        """Return when `advance` is due."""
        return min(self._seeds_due_at, self._dead_due_at, self._push_pull_at)

    def is_push_pull_due(self, now: float) -> bool:
        """Whether the exchange with a member is due, once an interval."""
        return self._push_pull_at <= now

    def on_joined(self, now: float) -> None:
        """Exchange soon: gossip reaches almost everyone, and nodes that join together make sure."""
        if len(self._members) <= _BASE_MEMBERS:
            soon_s = self._config.probe_interval_s * self._rng.uniform(1, 2)
            self._push_pull_at = min(self._push_pull_at, now + soon_s)

    def advance(self, now: float) -> list[ExchangeState]:
        """Return the exchanges that are due."""
        due: list[ExchangeState] = []
        for seed in self._seeds:
            if seed.dialling or seed.due_at > now:
                continue
            if seed.reached is not None and self._members.at(seed.reached) is not None:
                seed.due_at = now + self._interval_s()
            else:
                seed.dialling = True
                due.append(ExchangeState(seed.address, join=True))
        self._note_seeds_due()
        if self._dead_due_at <= now:
            self._dead_due_at = now + self._interval_s()
            dead = [record for record in self._members if record.state is MemberState.DEAD]
            chosen = self._members.pick(1, without=(), among=dead)
            due += [ExchangeState(record.address, join=True) for record in chosen]
        if self.is_push_pull_due(now):
            self._push_pull_at = now + push_pull_interval_s(
                self._config.push_pull_interval_s, self._members.count(now)
            )
            chosen = self._members.pick(1, without=(self._name,))
            due += [ExchangeState(record.address, join=False) for record in chosen]
        return due

    def on_ended(self, to: Address, reached: Address | None, now: float) -> None:
        """Note how joining ended; seeds that failed are tried again after a growing pause."""
        for seed in self._seeds:
            if seed.address != to or not seed.dialling:
                continue
            seed.dialling = False
            seed.reached = reached
            if reached is None:
                seed.due_at = now + seed.backoff.failed()
            else:
                seed.due_at = now + self._interval_s()
                seed.backoff.succeeded()
        self._note_seeds_due()

    def _note_seeds_due(self) -> None:
        due = (seed.due_at for seed in self._seeds if not seed.dialling)
        self._seeds_due_at = min(due, default=math.inf)

    def _interval_s(self) -> float:
        return self._config.reconnect_interval_s * self._rng.uniform(0.5, 1.0)


def push_pull_interval_s(base_s: float, members: int) -> float:
    """Return the pause between full exchanges: one `base_s` more per doubling above 32 members."""
    if members <= _BASE_MEMBERS:
        return base_s
    return base_s * (math.ceil(math.log2(members) - math.log2(_BASE_MEMBERS)) + 1)
