"""Decides when to dial seeds and lost members again: for ever, with pauses.

Enters: results of dialling, members, now. Leaves: addresses to dial.
Never: dialling; resolving names.

Gossip alone never heals a long partition: nobody talks to the dead (hashicorp/memberlist#222). So
seeds that are not live members, and members that were lost, are dialled for ever.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from noti.backoff import Backoff
from noti.swim.core.events import ExchangeState
from noti.swim.core.members import Members
from noti.swim.core.messages import Address, MemberState
from noti.swim.core.timing import SwimConfig


@dataclass(slots=True)
class _Seed:
    address: Address
    """As configured; the host may be a name, which is resolved at each dial."""
    due_at: float
    backoff: Backoff
    reached: Address | None = None
    """Which address answered last."""
    dialling: bool = False


class Rejoiner:
    """One node's dialling of those it should know and does not."""

    def __init__(
        self,
        seeds: Sequence[Address],
        *,
        members: Members,
        config: SwimConfig,
        rng: random.Random,
        now: float,
    ) -> None:
        self._members = members
        self._config = config
        self._rng = rng
        first_s, most_s = config.seed_retry_min_s, config.reconnect_interval_s
        self._seeds = [
            _Seed(address, now, Backoff(rng, first_s=first_s, most_s=most_s)) for address in seeds
        ]
        self._lost_due_at = now + config.reconnect_interval_s

    def deadline(self) -> float:
        """Return when `advance` is due."""
        due = [seed.due_at for seed in self._seeds if not seed.dialling]
        return min([*due, self._lost_due_at])

    def advance(self, now: float) -> list[ExchangeState]:
        """Return whom to dial now."""
        dials: list[ExchangeState] = []
        for seed in self._seeds:
            if seed.dialling or seed.due_at > now:
                continue
            if seed.reached is not None and self._members.at(seed.reached) is not None:
                seed.due_at = now + self._interval_s()
            else:
                seed.dialling = True
                dials.append(ExchangeState(seed.address, join=True))
        if self._lost_due_at <= now:
            self._lost_due_at = now + self._interval_s()
            lost = [record for record in self._members if record.state is MemberState.DEAD]
            chosen = self._members.pick(1, without=(), among=lost)
            dials += [ExchangeState(record.address, join=True) for record in chosen]
        return dials

    def on_ended(self, to: Address, reached: Address | None, now: float) -> None:
        """Note how dialling ended; seeds that failed are tried again after a growing pause."""
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

    def _interval_s(self) -> float:
        return self._config.reconnect_interval_s * self._rng.uniform(0.5, 1.0)
