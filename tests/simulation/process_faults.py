"""What goes wrong with the processes and machines of a simulated cluster.

Enters: a scene. Leaves: processes that were killed, stopped, frozen or moved; a word about each.
Never: touches a disk (`disk_faults.py`) or a cable (`network_faults.py`).
"""

import trio

from tests.simulation.scene import Faults, start_again

MACHINES_MAX = 6


class ProcessFaults(Faults):
    """See `Faults`."""

    async def crash(self) -> str | None:
        machine = self._scene.any()
        if not machine.up:
            return None
        unnoticed = self._rng.random() < 0.3
        await machine.crash(unnoticed=unnoticed)
        return f"{machine.name}{' unnoticed' if unnoticed else ''}"

    async def crash_at_disk_operation(self) -> str:
        """The next start, or the running process, dies in the middle of a change of the disk."""
        machine = self._scene.any()
        at = machine.disk.operations + self._rng.randint(0, 12)

        def watch(number: int) -> None:
            if number == at:
                self._cluster.timeline.reach("a node died in the middle of a change of its disk")
                self._cluster.nursery.start_soon(machine.crash)

        machine.disk.watch = watch
        return f"{machine.name} at {at}"

    async def crash_everybody(self) -> str:
        for machine in self._cluster.nodes:
            await machine.crash()
        await trio.sleep(self._rng.uniform(0.0, 2.0))
        if self._rng.random() < 0.3:
            for machine in self._cluster.nodes:
                machine.move()
            self._cluster.timeline.reach("all came back under other addresses")
        await self.restart()
        return "all machines"

    async def restart(self) -> str | None:
        down = [machine for machine in self._cluster.nodes if machine.down]
        for machine in down:
            await start_again(machine)
        return ",".join(machine.name for machine in down) or None

    async def roll(self) -> str:
        for machine in list(self._cluster.nodes):
            if machine.up and not machine.clock.frozen:
                await machine.stop()
                await trio.sleep(self._rng.uniform(0.0, 1.0))
                await start_again(machine)
                await trio.sleep(self._rng.uniform(0.0, 2.0))
        return "all nodes"

    async def stop(self) -> str | None:
        machine = self._scene.running()
        if machine is None:
            return None
        await machine.stop()
        return machine.name

    async def freeze(self) -> str | None:
        machine = self._scene.running()
        if machine is None:
            return None
        machine.freeze()
        return machine.name

    async def thaw(self) -> None:
        for machine in self._cluster.nodes:
            machine.thaw()

    async def move(self) -> str | None:
        """A machine comes back under another address."""
        machine = self._scene.any()
        await machine.crash(unnoticed=self._rng.random() < 0.5)
        machine.move()
        await start_again(machine)
        return machine.name

    async def grow(self) -> str | None:
        if len(self._cluster.nodes) >= MACHINES_MAX or not self._scene.may_be_strange():
            return None
        if self._cluster.leader() is None:
            return None
        machine = await self._cluster.add_machine()
        return machine.name
