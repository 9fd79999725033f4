"""What goes wrong with the disks of a simulated cluster.

Enters: a scene. Leaves: disks that fail, fill up, slow down, lie or are gone; a word about each.
Never: the loss of a disk while anybody else lacks anything.
"""

import trio

from tests.simulation.scene import Faults, start_again


class DiskFaults(Faults):
    """See `Faults`."""

    async def wipe(self) -> str | None:
        if not await self._scene.may_soon_lose_a_disk():
            return None
        machine = self._rng.choice(self._cluster.nodes)
        self._scene.lost.add(machine.node_id())
        await machine.crash()
        machine.wipe()
        await trio.sleep(self._rng.uniform(0.0, 20.0))
        await start_again(machine)
        self._cluster.timeline.reach("a node lost its disk")
        return machine.name

    async def flip_bit(self) -> str | None:
        """Whatever a disk does to its files is refused at the start, or harms nothing."""
        if not await self._scene.may_soon_lose_a_disk():
            return None
        machine = self._rng.choice(self._cluster.nodes)
        before, node_id = machine.consensus(), machine.node_id()
        await machine.stop()
        where = machine.flip_bit(self._rng)
        await machine.start()
        if not machine.up:
            self._cluster.timeline.reach("a flipped bit was refused")
            self._scene.lost.add(node_id)
            machine.wipe()
            await start_again(machine)
        elif machine.node_id() == node_id:
            after = machine.consensus()
            assert (after.term, after.last_index) >= (before.term, before.last_index), (
                f"{machine.name} forgot something durable after a bit was flipped {where}"
            )
        else:
            self._scene.lost.add(node_id)
        machine.damaged = False
        return f"{machine.name} {where}"

    async def fail_disk(self) -> str:
        machine = self._scene.any()
        if self._rng.random() < 0.3:
            machine.disk.fail_reads = True
            return f"{machine.name} at the next read"
        machine.disk.fail_next(self._rng.randint(0, 10))
        return f"{machine.name} at one of the next changes"

    async def fill_disk(self) -> str:
        machine = self._scene.any()
        machine.disk.full = not machine.disk.full
        return f"{machine.name} {'full' if machine.disk.full else 'has room again'}"

    async def slow_disk(self) -> str:
        machine = self._scene.any()
        usual = self._swarm.disk_latency_s
        machine.disk.latency_s = self._rng.choice([usual, (0.0, 0.3), (0.1, 1.0)])
        return f"{machine.name} {machine.disk.latency_s}"
