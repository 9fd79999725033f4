"""What only the simulator's RPC network promises: faults on demand, the same run for a seed."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from noti.errors import PeerUnavailable
from noti.raft.core.messages import Message, TimeoutNow
from noti.raft.ports import MessageStream
from tests.contract.test_rpc_network import CLIENT, Handler, Publications, receive
from tests.simulation.memory_rpc import MemoryRpcNetwork, RpcHub

A, B = ("a", 8400), ("b", 8400)


def message(term: int) -> Message:
    return TimeoutNow("n", term)


@asynccontextmanager
async def connected(handler: Handler, seed: int = 1) -> AsyncIterator[tuple[RpcHub, MessageStream]]:
    hub = RpcHub(random.Random(seed))
    async with trio.open_nursery() as nursery:
        await nursery.start(MemoryRpcNetwork(hub, B).serve_rpc, B, handler, handler, Publications())
        yield hub, await MemoryRpcNetwork(hub, A).open_raft_stream(B, CLIENT)
        nursery.cancel_scope.cancel()


async def test_killed_node_resets_its_streams_at_once(autojump_clock: MockClock) -> None:
    handler = Handler()
    async with connected(handler) as (hub, stream):
        before = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def wait_for_reset() -> None:
                with pytest.raises(PeerUnavailable):
                    await receive(stream)

            nursery.start_soon(wait_for_reset)
            await trio.testing.wait_all_tasks_blocked()
            hub.kill(B)
        assert trio.current_time() == before
        assert handler.ended.is_set()
        with pytest.raises(PeerUnavailable):
            await stream.send([message(1)])
        with pytest.raises(PeerUnavailable):
            await MemoryRpcNetwork(hub, A).open_raft_stream(B, CLIENT)


async def test_stalled_link_delivers_everything_after_it_healed(autojump_clock: MockClock) -> None:
    async with connected(Handler()) as (hub, stream):
        hub.partition(A, B, "stall")
        await stream.send([message(1)])
        await stream.send([message(2)])
        with trio.move_on_after(60) as scope:
            await receive(stream)
        assert scope.cancelled_caught
        hub.heal()
        assert [*await receive(stream), *await receive(stream)] == [message(1), message(2)]


async def test_dropping_link_breaks_the_stream_once_it_healed(autojump_clock: MockClock) -> None:
    async with connected(Handler()) as (hub, stream):
        hub.partition(A, B, "drop")
        await stream.send([message(1)])
        with trio.move_on_after(60) as scope:
            await receive(stream)
        assert scope.cancelled_caught
        hub.heal()
        with pytest.raises(PeerUnavailable):
            await stream.send([message(2)])


async def test_cut_link_cannot_be_dialed(autojump_clock: MockClock) -> None:
    async with connected(Handler()) as (hub, _):
        hub.partition(A, B)
        with trio.move_on_after(60) as scope:
            await MemoryRpcNetwork(hub, A).open_raft_stream(B, CLIENT)
        assert scope.cancelled_caught


async def times_of_echoes(seed: int) -> list[float]:
    async with connected(Handler(), seed) as (_, stream):
        start = trio.current_time()
        times: list[float] = []
        for term in range(1, 20):
            await stream.send([message(term)])
            await receive(stream)
            times.append(round(trio.current_time() - start, 9))
    return times


async def test_same_seed_gives_the_same_times(autojump_clock: MockClock) -> None:
    first = await times_of_echoes(7)
    assert await times_of_echoes(7) == first
    assert await times_of_echoes(8) != first
