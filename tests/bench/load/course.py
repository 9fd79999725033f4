"""The things that are done to a server while its clients look on, and what came of it.

Enters: fleets of clients, a publisher. Leaves: figures.
Never: an event published that is not accounted for: every client must get every number once.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from noti.errors import Unavailable
from tests.bench.load.fleets import CONNECTING_MAX, Fleets, Reached
from tests.bench.load.mark import Mark
from tests.bench.load.processes import cpu_s, resident_bytes
from tests.bench.load.publishers import Publisher
from tests.bench.load.tally import Tally

ARRIVE_S_MAX: Final = 30.0
"""Until all that was published has arrived: longer than a client waits to come back."""
LOOK_S: Final = 0.0002
"""How often a publisher looks whether it may go on."""
BURST_MAX: Final = 64
"""Events handed to a publisher at once, so that it looks at deliveries between."""
MISSED_EVENTS: Final = 100
"""Published while all clients are away, so that each has something to catch up with."""


def new_run() -> str:
    """Return a name for a run that no other run of this server has."""
    return os.urandom(4).hex()


@dataclass(frozen=True, slots=True)
class Stretch:
    """What happened while events were published."""

    seconds: float
    published: int
    tally: Tally
    clients_cpu: float
    """Processors that the clients kept busy."""
    server_cpu: float | None
    """Processors that the server kept busy; None when nobody said which process it is."""

    @property
    def deliveries_per_s(self) -> float:
        """Events received by clients, per second."""
        return self.tally.events / self.seconds

    @property
    def deliveries_per_cpu_s(self) -> float | None:
        """Events received by clients, per second of the server's CPU time: what the rate would be
        if nothing else used its processor. None when nobody said which process it is."""
        if not self.server_cpu:
            return None
        return self.tally.events / (self.server_cpu * self.seconds)


class Course:
    """One server, one fleet of clients, one sequence of numbers."""

    def __init__(self, fleets: Fleets, run: str, pids: Sequence[int]) -> None:
        """Prepare; `pids` are the server's processes, for its costs."""
        self._fleets = fleets
        self._run = run
        self._pids = list(pids)
        self.last_seq = 0
        self.storm_tally = Tally()
        """What clients saw in the last storm."""

    def pace(self, publisher: Publisher, rate: float, seconds: float) -> Stretch:
        """Publish `rate` events a second, one at a time."""
        return self._measured(publisher, lambda: self._publish_at(publisher, rate, seconds))

    def flood(self, publisher: Publisher, window: int, batch: int, seconds: float) -> Stretch:
        """Publish as fast as the server delivers, `batch` or more at once, at most `window` ahead.

        Further ahead is further than histories reach: it measures how a server loses events.
        """
        assert 0 < batch <= window
        return self._measured(
            publisher, lambda: self._publish_ahead(publisher, window, batch, seconds)
        )

    def singly(self, publisher: Publisher, events: int) -> Stretch:
        """Publish one event after the other, each when all clients have the one before."""
        return self._measured(publisher, lambda: self._publish_singly(publisher, events))

    def unpaced(self, publisher: Publisher, seconds: float) -> Stretch:
        """Publish as fast as the server takes it, whether or not clients follow."""
        return self._measured(publisher, lambda: self._publish_unpaced(publisher, seconds))

    def storm(
        self, publisher: Publisher, away_s: float, in_flight: int = CONNECTING_MAX
    ) -> Reached:
        """Drop all clients, publish what they miss, let all come back with their last ids."""
        self._fleets.start_counting()
        self._publish(publisher, 1)  # so that everybody has an id to come back with
        publisher.settle()
        self._fleets.wait_until_all_have(self.last_seq)
        self._fleets.drop()
        self._publish(publisher, MISSED_EVENTS)
        publisher.settle()
        time.sleep(away_s)
        reached = self._fleets.reopen(self.last_seq, in_flight)
        self.storm_tally, _ = self._fleets.report(self.last_seq)
        return reached

    def idle_cpu(self, seconds: float) -> float:
        """Return the share of a processor that the server uses with nothing to do."""
        before = cpu_s(self._pids)
        started = time.monotonic()
        time.sleep(seconds)
        return (cpu_s(self._pids) - before) / (time.monotonic() - started)

    def resident_bytes(self) -> int:
        """Return the server's memory."""
        return resident_bytes(self._pids)

    def _measured(self, publisher: Publisher, work: Callable[[], None]) -> Stretch:
        fleets = self._fleets
        fleets.start_counting()
        _, clients_before = fleets.report(self.last_seq)
        server_before = cpu_s(self._pids)
        first = self.last_seq
        started = time.monotonic()
        work()
        publisher.settle()
        fleets.wait_until_all_have(self.last_seq)
        seconds = time.monotonic() - started
        server_after = cpu_s(self._pids)
        tally, clients_after = fleets.report(self.last_seq)
        return Stretch(
            seconds,
            self.last_seq - first,
            tally,
            (clients_after - clients_before) / seconds,
            (server_after - server_before) / seconds if self._pids else None,
        )

    def _publish_at(self, publisher: Publisher, rate: float, seconds: float) -> None:
        began = time.monotonic()
        for number in range(1, round(rate * seconds) + 1):
            self._publish(publisher, 1)
            time.sleep(max(0.0, began + number / rate - time.monotonic()))

    def _publish_ahead(self, publisher: Publisher, window: int, batch: int, seconds: float) -> None:
        fleets = self._fleets
        base = fleets.received / fleets.clients - self.last_seq
        ends = time.monotonic() + seconds
        moved_at, moved = time.monotonic(), 0
        while (now := time.monotonic()) < ends:
            if fleets.received != moved:
                moved_at, moved = now, fleets.received
            room = int(window - (self.last_seq - (moved / fleets.clients - base)))
            if room >= batch:
                # As many as may go: to hand over each by itself would make the publisher the limit.
                self._publish(publisher, min(room - room % batch, max(batch, BURST_MAX)))
            elif now - moved_at > ARRIVE_S_MAX:
                raise Unavailable(f"nothing arrives any more, {moved} deliveries so far")
            else:
                time.sleep(LOOK_S)

    def _publish_singly(self, publisher: Publisher, events: int) -> None:
        for _ in range(events):
            self._publish(publisher, 1)
            publisher.settle()
            self._fleets.wait_until_all_have(self.last_seq)

    def _publish_unpaced(self, publisher: Publisher, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self._publish(publisher, BURST_MAX)

    def _publish(self, publisher: Publisher, count: int) -> None:
        first = self.last_seq + 1
        marks = [Mark(self._run, seq, time.monotonic_ns()) for seq in range(first, first + count)]
        publisher.publish(marks)
        self.last_seq += count
