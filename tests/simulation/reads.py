"""A consistent read: `GET /status?consistent=1` without the HTTP around it.

The answer is checked, if there is one in time; that there is none is not taken for a wrong one.
"""

import trio

from tests.simulation.machine import SimulatedNode
from tests.simulation.world import SimulatedCluster

READ_WITHIN_S = 5.0


async def read(cluster: SimulatedCluster, machine: SimulatedNode) -> None:
    """A consistent read shows all that was shown anywhere before it was asked for."""
    report, clients, shown = machine.report, machine.clients, len(cluster.checks.shown)
    assert report is not None
    await machine.clock.thawed()  # until then the request waits in a socket
    with trio.move_on_after(READ_WITHIN_S) as patience:
        await report.barrier()
    if not patience.cancelled_caught and machine.report is report and not machine.crashed:
        assert clients.feed.newest_seq >= shown, (
            f"{machine.name} answered a read with {clients.feed.newest_seq} of {shown}"
        )
        cluster.timeline.reach("a read was confirmed")
