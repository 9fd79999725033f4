"""What goes wrong with the processes and machines of a simulated cluster.

Disks are left to `disk_faults.py`, cables to `network_faults.py`.
"""

from contextlib import suppress

import trio

from tests.simulation.machine import SimulatedNode
from tests.simulation.reads import read
from tests.simulation.scene import Faults, start_again

MACHINES_MAX = 6
REPLACED_WITHIN_S = 4.0
"""Some elections."""


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

    async def crash_at_await(self) -> str:
        """A process dies between two steps of its tasks, whichever these are."""
        machine = self._scene.any()
        steps = self._rng.randint(1, self._rng.choice([3, 30, 300, 3000]))
        machine.crash_at_step(steps)
        return f"{machine.name} after {steps} steps"

    async def crash_everybody(self) -> str:
        await self._end_everybody()
        await self.restart()
        return "all machines"

    async def move_everybody(self) -> str:
        """A full outage, after which nobody has the address that the others remember."""
        await self._end_everybody()
        for machine in self._cluster.nodes:
            machine.move()
        await self.restart()
        self._cluster.timeline.reach("all came back under other addresses")
        return "all machines"

    async def _end_everybody(self) -> None:
        for machine in self._cluster.nodes:
            await machine.crash()
        await trio.sleep(self._rng.uniform(0.0, 2.0))

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

    async def break_a_part(self) -> str | None:
        """An error that a node cannot survive; it may have many browsers to part with."""
        machine = self._scene.running()
        if machine is None:
            return None
        machine.fall(self._rng.choice([0.0, 1.0, 6.0]))
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

    async def ask_a_zombie(self) -> str | None:
        """A leader is replaced without knowing it, and asked for a read before it hears of that.

        It was stopped for a while; or its cables were cut, and only the others saw streams end.
        """
        cluster, zombie = self._cluster, self._cluster.leader()
        if zombie is None or zombie.clock.frozen or len(cluster.nodes) < 3:
            return None
        stopped = self._rng.random() < 0.5
        if stopped:
            zombie.freeze()
        else:
            self._cut_off(zombie)
        with suppress(trio.TooSlowError):
            await cluster.wait_for(lambda: cluster.leader() is not zombie, REPLACED_WITHIN_S)
            shown = len(cluster.checks.shown)
            successor = cluster.leader()
            if successor is not None:
                cluster.nursery.start_soon(cluster.publish_to, successor, 1)
            await cluster.wait_for(lambda: len(cluster.checks.shown) > shown, REPLACED_WITHIN_S)
        replaced = cluster.leader() is not zombie
        if replaced and zombie.leads():
            cluster.timeline.reach("a leader that was replaced unawares was asked for a read")
        if zombie.up:
            for _ in range(3):
                cluster.nursery.start_soon(read, cluster, zombie)
        await trio.sleep(self._rng.uniform(0.0, 0.1))
        zombie.thaw()
        if not stopped:
            cluster.mend()
        return f"{zombie.name}{' stopped' * stopped}{', replaced' * replaced}"

    def _cut_off(self, machine: SimulatedNode) -> None:
        hub = self._cluster.hub
        for other in self._cluster.nodes:
            if other is not machine:
                hub.partition(machine.rpc, other.rpc)
                hub.reset(machine.rpc, other.rpc)

    async def step_wall_clock(self) -> str:
        """Somebody, or NTP, sets the time of day."""
        machine = self._scene.any()
        seconds = self._rng.uniform(60, self._rng.choice([600, 6 * 3600])) * self._rng.choice(
            [1, -1]
        )
        machine.clock.step_wall(seconds)
        self._cluster.timeline.reach(f"a wall clock jumped {'ahead' if seconds > 0 else 'back'}")
        return f"{machine.name} by {seconds:.0f} s"

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
