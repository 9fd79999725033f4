"""What goes wrong with the source of events.

It is away, repeats itself, forgets, sends what does not parse, or its library fails. Nothing inside
the cluster is touched, except who leads it.
"""

import asyncio
from contextlib import suppress

import trio

from tests.simulation.scene import Faults

INVALID = (
    b"",
    b"\x08",  # cut in the middle of a field
    b"\x12\x05ab",  # shorter than it says
    b"\x12\x01\xff",  # not UTF-8
    b"\x0a\x01a",  # text where a number belongs
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x98\x06\x01",  # nothing that we know
)

FOREIGN_ERRORS = (
    AssertionError,
    AttributeError,
    KeyError,
    RuntimeError,
    ValueError,
    OSError,
    asyncio.InvalidStateError,
)
"""What a library raises that is not made for Trio, when it is cancelled or closed too early."""

FLAPS = 3
OPENS_WITHIN_S = 3.0
"""Some elections."""


class SourceFaults(Faults):
    """See `Faults`."""

    async def break_library(self) -> str:
        """At any await, on any way: the library raises whatever it likes."""
        leader = self._cluster.leader()  # most often: only who leads uses its library
        machine = self._scene.any() if leader is None or self._rng.random() < 0.2 else leader
        share = self._rng.choice([0.1, 0.5, 1.0])
        place = self._rng.choice(["", "", "begin", "fetch", "ack", "dead_letter"])

        def stumble(at: str) -> None:
            if place in ("", at) and self._rng.random() < share:
                self._cluster.timeline.reach(f"the source's library failed in {at}")
                raise self._rng.choice(FOREIGN_ERRORS)(f"planted in {at}")

        machine.source.stumbles = stumble
        if place == "begin":
            self._cluster.stream.interrupt()  # so that there is a new session
        await self.publish_garbage()  # so that there is something to terminate
        return f"{machine.name} {share:.0%} {place}"

    async def flap_while_the_source_opens(self) -> str:
        """Leadership goes as soon as the leader begins to open the source, some times in a row."""
        for machine in self._cluster.nodes:
            machine.source.opens_in_s = self._rng.uniform(0.1, 2.0)
        flaps = 0
        with suppress(trio.TooSlowError):
            for _ in range(FLAPS):
                await self._cluster.wait_for(self._leader_opens, OPENS_WITHIN_S)
                await trio.sleep(self._rng.uniform(0.0, 0.1))
                leader = self._cluster.leader()
                if leader is not None and not leader.clock.frozen:
                    leader.hand_over()
                    flaps += 1
                await trio.sleep(self._rng.uniform(0.0, 0.5))
        for machine in self._cluster.nodes:
            machine.source.opens_in_s = 0.0
        return f"{flaps} times"

    def _leader_opens(self) -> bool:
        leader = self._cluster.leader()
        return leader is not None and leader.source.opening

    async def stop_source(self) -> str:
        stream = self._cluster.stream
        (stream.stop if stream.up else stream.start)()
        return "goes on" if stream.up else "stops"

    async def cut_source(self) -> str:
        machine = self._scene.any()
        machine.source.reachable = not machine.source.reachable
        return f"for {machine.name} {'mended' if machine.source.reachable else 'cut'}"

    async def redeliver(self) -> str:
        self._cluster.stream.interrupt()
        return "all that is not acknowledged"

    async def recreate_stream(self) -> str:
        self._cluster.recreate_stream()
        return "empty"

    async def lose_acks(self) -> str:
        share = self._rng.choice([0.2, 1.0, 0.0])
        self._cluster.stream.loses = lambda: self._rng.random() < share
        return f"{share:.0%}"

    async def publish_garbage(self) -> str:
        for _ in range(self._rng.randint(1, 3)):
            self._cluster.publish_invalid(self._rng.choice(INVALID))
        return "some"
