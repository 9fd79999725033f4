"""What goes wrong with the source of events.

It is away, repeats itself, forgets, sends what does not parse, or its library fails. Nothing inside
the cluster is touched, except who leads it.
"""

import asyncio
from contextlib import suppress

import trio

from tests.simulation.memory_stream import MemoryStream
from tests.simulation.scene import Faults
from tests.simulation.world import TEXTS

INVALID_CATEGORIES = (
    b"",
    b"\x08",  # cut in the middle of a field
    b"\x12\x05ab",  # shorter than it says
    b"\x12\x01\xff",  # not UTF-8
    b"\x0a\x01a",  # text where a number belongs
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x98\x06\x01",  # nothing that we know
)
INVALID_TEXTS = (
    b"\xff",  # not UTF-8
    b"abc\xc3",  # cut in the middle of a character
)


def invalid_for(stream: MemoryStream) -> tuple[bytes, ...]:
    """Return payloads that can never be an event of this stream."""
    return INVALID_TEXTS if stream.name == TEXTS else INVALID_CATEGORIES


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

        stream = self._stream()
        machine.sources[stream.name].stumbles = stumble
        if place == "begin":
            stream.interrupt()  # so that there is a new session
        await self.publish_garbage()  # so that there is something to terminate
        return f"{machine.name} {share:.0%} {place}"

    async def flap_while_the_source_opens(self) -> str:
        """Leadership goes as soon as the leader begins to open the source, some times in a row."""
        for machine in self._cluster.nodes:
            opens_in_s = self._rng.uniform(0.1, 2.0)
            for source in machine.sources.values():
                source.opens_in_s = opens_in_s
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
            for source in machine.sources.values():
                source.opens_in_s = 0.0
        return f"{flaps} times"

    def _leader_opens(self) -> bool:
        leader = self._cluster.leader()
        return leader is not None and any(one.opening for one in leader.sources.values())

    def _stream(self) -> MemoryStream:
        streams = self._cluster.streams
        return self._rng.choice(streams) if len(streams) > 1 else streams[0]

    async def stop_source(self) -> str:
        stream = self._cluster.stream
        up = stream.up
        for one in self._cluster.streams:  # of one server
            (one.stop if up else one.start)()
        return "stops" if up else "goes on"

    async def cut_source(self) -> str:
        machine = self._scene.any()
        reachable = not machine.source.reachable
        for source in machine.sources.values():
            source.reachable = reachable
        return f"for {machine.name} {'mended' if reachable else 'cut'}"

    async def redeliver(self) -> str:
        self._stream().interrupt()
        return "all that is not acknowledged"

    async def refuse_messages(self) -> str | None:
        """Another reader of the consumer takes some and gives them back (nak), or AckWait is over.

        They come again behind later ones, which may be on their way or committed by then.
        """
        stream, taken = self._stream(), 0
        if not stream.acknowledges:
            return None  # nobody else has the reader's consumer
        if self._rng.random() < 0.7:
            self._cluster.publish(self._rng.randint(2, 6), stream)
            taken = stream.take_elsewhere(self._rng.randint(1, 3))
            await trio.sleep(self._rng.choice([0.0, 0.01, 1.0]))
        count = stream.deliver_again()
        return f"{taken} taken, {count} given back"

    async def hold_acks(self) -> str:
        """Acknowledgements arrive late: after the consumer was deleted, by whoever leads next."""
        share = self._rng.choice([0.2, 1.0, 0.0])
        stream = self._stream()
        stream.holds = lambda: self._rng.random() < share
        self._cluster.publish(self._rng.randint(1, 3), stream)
        await trio.sleep(self._rng.uniform(0.0, 1.0))
        stream.interrupt()  # what was held arrives at the next consumer's time
        return f"{share:.0%}"

    async def expire_messages(self) -> str | None:
        """A stream with limits deletes its oldest messages, read or not, while it is away."""
        stream = self._stream()
        if stream.acknowledges:
            return None
        was_up = stream.up
        if was_up and self._rng.random() < 0.7:
            stream.stop()
        self._cluster.publish(self._rng.randint(0, 6), stream)
        kept = self._rng.choice([0, 0, 1, 3])
        count = self._cluster.expire(stream, max(0, len(stream.unacknowledged) - kept))
        await trio.sleep(self._rng.choice([0.0, 1.0]))
        if was_up and not stream.up:
            stream.start()
        return f"{count}"

    async def recreate_stream(self) -> str:
        self._cluster.recreate_stream(self._stream())
        return "empty"

    async def lose_acks(self) -> str:
        share = self._rng.choice([0.2, 1.0, 0.0])
        self._stream().loses = lambda: self._rng.random() < share
        return f"{share:.0%}"

    async def publish_garbage(self) -> str:
        for _ in range(self._rng.randint(1, 3)):
            stream = self._stream()
            self._cluster.publish_invalid(stream, self._rng.choice(invalid_for(stream)))
        return "some"
