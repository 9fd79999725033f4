"""What goes wrong with the disks of a simulated cluster.

Disks fail, fill up, slow down, lie or are gone; none is lost while anybody else lacks anything.
"""

from contextlib import suppress

import trio

from noti.raft.core.status import Status
from tests.simulation.machine import SimulatedNode
from tests.simulation.memory_disk import MemoryDisk
from tests.simulation.scene import DISK_HANGS_S_MAX, REST_WITHIN_S, Faults, start_again
from tests.simulation.timeline import in_time

LED_AGAIN_WITHIN_S = 20.0
"""One of the others may have to be elected, over slow and lossy cables."""


REPLACED_WITHIN_S = 3.0
"""Two election timeouts until it is clear that the disk hangs; clocks may run slow."""
PROMPT_S = 0.3
"""While messages take longer than this, no vote comes back within an election timeout."""
PUBLISHED_WITHIN_S = 3.0
REFUSED_WITHIN_S = 5.0
"""The leader dials it, or is dialed, and speaks to it."""


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
        if not await self._start_with_damage(machine, node_id, before):
            self._cluster.timeline.reach("a flipped bit was refused")
        return f"{machine.name} {where}"

    async def stray_write(self) -> str | None:
        """A disk puts a write elsewhere or nowhere, and says that all is well.

        More is written afterwards: that the very last write was lost shows in no file.
        """
        if not await self._scene.may_soon_lose_a_disk():
            return None
        machine = self._rng.choice(self._cluster.nodes)
        node_id = machine.node_id()
        machine.disk.strays, machine.disk.strayed = True, ""
        machine.damaged = True
        await self._make_it_write(machine.disk)
        machine.disk.strays, strayed = False, machine.disk.strayed
        machine.damaged = bool(strayed)
        last_index = None if machine.down else machine.consensus().last_index
        await self._make_it_write(machine.disk)
        if not strayed:
            return None
        # Where nothing follows the entry that is not there, it looks as if it never was.
        of_log = strayed.endswith(".wal")
        is_last = of_log and not machine.down and machine.consensus().last_index == last_index
        may_go_on = await self._scene.may_soon_lose_a_disk()
        if machine.down:  # it read back what it had written
            self._cluster.timeline.reach("a stray write was noticed while the node ran")
        if machine.down or is_last or not may_go_on:
            # Nobody could say what it must still know: let nobody ask.
            await machine.crash()
            self._replace_disk(machine, node_id)
            await start_again(machine)
            return f"{machine.name}, who is replaced"
        before = machine.consensus()
        await (machine.stop if self._rng.random() < 0.5 else machine.crash)()
        if not await self._start_with_damage(machine, node_id, before):
            self._cluster.timeline.reach("a stray write was refused")
        return machine.name

    async def refuse_to_read(self) -> str | None:
        """A node that cannot read its files does not start; the others go on without it."""
        if not await self._scene.may_soon_lose_a_disk():
            return None
        machine = self._rng.choice(self._cluster.nodes)
        before, node_id = machine.consensus(), machine.node_id()
        await (machine.stop if self._rng.random() < 0.5 else machine.crash)()
        machine.disk.fail_reads = True
        await machine.start()
        assert machine.down, f"{machine.name} started without reading its files"
        await self._others_go_on()
        if self._rng.random() < 0.5:
            self._replace_disk(machine, node_id)
            return f"{machine.name}, who comes back with an empty disk"
        await self._start_with_damage(machine, node_id, before)
        return f"{machine.name}, for once"

    async def _start_with_damage(
        self, machine: SimulatedNode, node_id: str, before: Status
    ) -> bool:
        """Start a node whose files were changed; return whether it took them. Then it has forgotten
        nothing; otherwise it comes back as a new node."""
        await machine.start()
        if machine.down:
            advises = "data directory" in machine.end_reason
            assert advises, f"does not say what to do: {machine.end_reason}"
            await self._others_go_on()
            self._replace_disk(machine, node_id)
            await start_again(machine)
            return False
        if machine.node_id() == node_id:
            after = machine.consensus()
            assert (after.term, after.last_index) >= (before.term, before.last_index), (
                f"{machine.name} forgot something durable, and did not notice"
            )
        else:
            self._scene.lost.add(node_id)
        machine.damaged = False
        return True

    async def _others_go_on(self) -> None:
        """One node that refuses to start harms nobody."""
        cluster = self._cluster
        with in_time(cluster.timeline, LED_AGAIN_WITHIN_S, "one refused to start, and no leader"):
            await cluster.wait_for(cluster.leader, LED_AGAIN_WITHIN_S)
        cluster.timeline.reach("a node refused to start, and the others went on")

    async def _make_it_write(self, disk: MemoryDisk) -> None:
        """Publish somewhere until a node has written to its disk, for a while."""
        cluster, before = self._cluster, disk.operations
        cluster.nursery.start_soon(cluster.publish_to, self._rng.choice(cluster.nodes), 1)
        with suppress(trio.TooSlowError):
            await cluster.wait_for(lambda: disk.operations > before and disk.idle, REST_WITHIN_S)

    def _replace_disk(self, machine: SimulatedNode, node_id: str) -> None:
        self._scene.lost.add(node_id)
        machine.wipe()
        self._cluster.timeline.reach("a node came back with an empty disk")

    async def hang_disk(self) -> str | None:
        """A cloud volume says nothing for 10 to 60 s; if the leader's does, another one leads."""
        cluster, seconds = self._cluster, self._rng.uniform(10.0, DISK_HANGS_S_MAX)
        whole = await self._scene.may_soon_lose_a_disk()
        leader = cluster.leader() if whole and self._rng.random() < 0.8 else None
        machine = leader or self._scene.running()
        if machine is None or machine.disk.hangs:
            return None
        leads = machine is leader and cluster.hub.latency_s[1] < PROMPT_S
        disk = machine.disk
        disk.hang()
        cluster.nursery.start_soon(self._answer_later, disk, seconds)
        if leads:
            others = [other for other in cluster.nodes if other is not machine]
            cluster.nursery.start_soon(cluster.publish_to, machine, 1)
            failure = "a leader's disk hangs, and nobody else leads"
            with in_time(cluster.timeline, REPLACED_WITHIN_S, failure):
                await cluster.wait_for(lambda: any(o.leads() for o in others), REPLACED_WITHIN_S)
            shown = len(cluster.checks.shown)
            cluster.nursery.start_soon(cluster.publish_to, self._rng.choice(others), 1)
            with in_time(cluster.timeline, PUBLISHED_WITHIN_S, "it leads, and commits nothing"):
                await cluster.wait_for(
                    lambda: len(cluster.checks.shown) > shown, PUBLISHED_WITHIN_S
                )
            cluster.timeline.reach("a leader's disk hung, and another one led in time")
        return f"{machine.name} for {seconds:.0f} s"

    async def _answer_later(self, disk: MemoryDisk, seconds: float) -> None:
        await trio.sleep(seconds)
        disk.answer()

    async def restore_old_disk(self) -> str | None:
        """A voter comes back with the files of earlier; it ends, and comes back as a new node."""
        cluster = self._cluster
        if not await self._scene.may_soon_lose_a_disk():
            return None
        machine = self._rng.choice([node for node in cluster.nodes if not node.leads()])
        last_index, node_id = machine.consensus().last_index, machine.node_id()
        files = machine.disk.copy()
        cluster.nursery.start_soon(cluster.publish_to, machine, 1)
        with suppress(trio.TooSlowError):
            await cluster.wait_for(
                lambda: machine.up and machine.consensus().last_index > last_index, REST_WITHIN_S
            )
        leader = cluster.leader()
        whole = await self._scene.may_soon_lose_a_disk()
        if not whole or leader is None or leader is not cluster.leader() or machine.leads():
            return None
        if machine.consensus().last_index == last_index or machine.node_id() != node_id:
            return None
        await machine.crash()
        machine.restore(files)
        term = leader.consensus().term
        await machine.start()
        with suppress(trio.TooSlowError):
            await cluster.wait_for(lambda: machine.down or leader.down, REFUSED_WITHIN_S)
        if machine.down:
            assert "join again as a new one" in machine.end_reason, machine.end_reason
            cluster.timeline.reach("an old data directory was refused")
        else:
            same = leader.leads() and leader.consensus().term == term
            assert not same, f"{machine.name} forgot what it had, and goes on"
            await machine.crash()
        self._replace_disk(machine, node_id)
        await start_again(machine)
        return machine.name

    async def fail_disk(self) -> str:
        machine = self._scene.any()
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
