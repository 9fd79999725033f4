"""How long puts stand still when the leader of a cluster of etcd is killed.

Enters: a cluster, stopped or not. Leaves: the time from the signal until a put succeeds that was
begun after it. Never: a put that was under way at the signal; etcd keeps such a one for up to seven
seconds, as the leader to which it was forwarded is gone.

Puts go to the two members that survive, in turn, so that no client has to find another member.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.bench.clusters import HOST, EtcdCluster, EtcdMember
from tests.bench.grpc_client import CallFailed, GrpcClient

PUT = b"\x0a\x05event\x12\x64" + b"x" * 100
"""A `PutRequest`: key and value."""


def kill_leader(
    cluster: EtcdCluster, *, rate: float, before_s: float, within_s: float
) -> tuple[EtcdMember, float]:
    """Kill the leader after `before_s` of puts, `rate` a second; return it, and the milliseconds
    until one succeeds. Raises `TimeoutError`."""
    cluster.signal(signal.SIGCONT)
    leader = cluster.wait_until_whole()
    survivors = [member.client for member in cluster.members if member is not leader]
    process = leader.process
    assert process is not None
    outage_s = asyncio.run(_outage_s(survivors, process.kill, rate, before_s, within_s))
    process.wait()
    return leader, outage_s * 1000


async def _outage_s(
    ports: Sequence[int], kill: Callable[[], None], rate: float, before_s: float, within_s: float
) -> float:
    clients = [await GrpcClient.connect(HOST, port, "/etcdserverpb.KV/Put") for port in ports]
    succeeded: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    begins_s = time.perf_counter()
    killed_s: float | None = None

    async def put(client: GrpcClient, *, is_after: bool) -> None:
        with suppress(CallFailed, ConnectionError):
            await client.call(PUT)
            if is_after and not succeeded.done():
                succeeded.set_result(time.perf_counter())

    try:
        async with asyncio.timeout(before_s + within_s):
            puts: list[asyncio.Task[None]] = []  # so that none is collected as garbage
            while not succeeded.done():
                if killed_s is None and time.perf_counter() - begins_s >= before_s:
                    killed_s = time.perf_counter()
                    kill()
                client = clients[len(puts) % len(clients)]
                one = put(client, is_after=killed_s is not None)
                puts.append(asyncio.create_task(one))
                await asyncio.wait([succeeded], timeout=1 / rate)
    finally:
        for client in clients:
            client.close()
    assert killed_s is not None
    return succeeded.result() - killed_s
