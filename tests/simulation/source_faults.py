"""What goes wrong with the source of events.

Enters: a scene. Leaves: a source that is away, repeats itself, forgets or talks nonsense.
Never: anything inside the cluster.
"""

from tests.simulation.scene import Faults
from tests.simulation.world import GARBAGE_SUBJECT

GARBAGE = (
    b"",
    b"\x08",  # cut in the middle of a field
    b"\x12\x05ab",  # shorter than it says
    b"\x12\x01\xff",  # not UTF-8
    b"\x0a\x01a",  # text where a number belongs
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x98\x06\x01",  # nothing that we know
)


class SourceFaults(Faults):
    """See `Faults`."""

    async def stop_source(self) -> str:
        stream = self._cluster.stream
        (stream.stop if stream.up else stream.start)()
        return "goes on" if stream.up else "stops"

    async def cut_source(self) -> str:
        machine = self._scene.any()
        machine.source.reachable = not machine.source.reachable
        return f"for {machine.name} {'mended' if machine.source.reachable else 'cut'}"

    async def redeliver(self) -> str:
        self._cluster.stream.begin()
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
            self._cluster.stream.publish(GARBAGE_SUBJECT, self._rng.choice(GARBAGE))
        return "some"
