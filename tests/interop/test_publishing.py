"""Publishers over gRPC at a follower of three real nodes, while the leader is killed.

Each number is published again under the same id until some answer says that it is committed; then
every history must hold every number once, all in the same order.
"""

import asyncio
import json
from collections import deque
from pathlib import Path

import pytest
import trio
from grpclib.client import Channel
from grpclib.const import Cardinality, Status

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.rpc.generated.noti.v1 import (
    Event,
    PublishRequest,
    PublishStreamResponse,
)
from tests import promises
from tests.http.stage import client, events
from tests.interop.cluster import SETTLE_S_MAX, until
from tests.interop.processes import NodeProcess, destroyed_in_the_end, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]

EVENTS = 600
UNANSWERED_MAX = 32
PAUSE_S = 0.002
"""About 500 events a second, so that the leader dies in the middle."""
RETRY_S = 0.02
RETRIABLE = {Status.UNAVAILABLE.value, Status.ABORTED.value, Status.RESOURCE_EXHAUSTED.value}


class Publisher:
    """One stream to one node."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.failures: list[str] = []
        self._waiting = deque(range(1, EVENTS + 1))
        self._unanswered: deque[int] = deque()

    async def publish_aio(self, address: Address) -> None:
        """Publish all numbers, over one connection that has to last."""
        async with Channel(*address) as channel:
            method = "/noti.v1.Publisher/PublishStream"
            way = Cardinality.STREAM_STREAM
            async with channel.request(
                method, way, PublishRequest, PublishStreamResponse
            ) as stream:
                while len(self.acknowledged) < EVENTS:
                    while self._waiting and len(self._unanswered) < UNANSWERED_MAX:
                        number = self._waiting.popleft()
                        self._unanswered.append(number)
                        await stream.send_message(PublishRequest(events=[event(number)]))
                        await asyncio.sleep(PAUSE_S)
                    answer = await stream.recv_message()
                    assert answer is not None, "the stream ended"
                    await self._take(answer)
                await stream.end()

    async def _take(self, answer: PublishStreamResponse) -> None:
        number = self._unanswered.popleft()
        if answer.failure is None:
            assert answer.published is not None
            assert answer.published.ids == [f"number-{number}"]
            self.acknowledged.append(number)
            return
        assert answer.failure.code in RETRIABLE, answer.failure
        self.failures.append(f"{number}: {answer.failure.code} {answer.failure.message}")
        self._waiting.append(number)
        await asyncio.sleep(RETRY_S)


def event(number: int) -> Event:
    return Event(topics=["numbers"], data=json.dumps(number), id=f"number-{number}")


async def history(node: NodeProcess) -> list[int]:
    """Return the numbers that a newcomer is shown, in order."""
    async with client(node.http) as http:
        await http.request("/.well-known/mercure?topic=*&lastEventID=earliest")
        while len(shown := events(http.text)) < EVENTS:
            await http.read_more()
    return [int(event["data"]) for event in shown]


@promises.ANSWERED_AFTER_MAJORITY
async def test_what_a_follower_acknowledged_is_in_every_history_once_when_the_leader_died(
    tmp_path: Path,
) -> None:
    nodes = [NodeProcess(f"node{number}", tmp_path) for number in (1, 2, 3)]
    join = [part for node in nodes for part in ("--join", written(node.gossip))]
    publisher = Publisher()
    async with destroyed_in_the_end(nodes):
        for node in nodes:
            node.start(*join, "--bootstrap-expect", "3")
        leader = await leading(nodes)
        follower = next(node for node in nodes if node is not leader)
        async with trio.open_nursery() as nursery:
            asyncio_loop = AsyncioLoop()
            await nursery.start(asyncio_loop.run)

            async def publish() -> None:
                await asyncio_loop.call(publisher.publish_aio, follower.rpc)

            async with trio.open_nursery() as publishing:
                publishing.start_soon(publish)
                await until(lambda: len(publisher.acknowledged) > EVENTS // 4, "events flow")
                await leader.kill()
                assert len(publisher.acknowledged) < EVENTS, "it died in the middle"
                await until(lambda: len(publisher.acknowledged) > EVENTS // 2, "they go on")
                leader.start()
            nursery.cancel_scope.cancel()
        print(f"{len(publisher.failures)} had to be published again: {publisher.failures[:3]}")
        assert sorted(publisher.acknowledged) == list(range(1, EVENTS + 1))
        await leader.until_up()
        histories = [await history(node) for node in nodes]
        assert sorted(histories[0]) == list(range(1, EVENTS + 1))
        assert histories == [histories[0]] * len(nodes)
        for node in nodes:
            status = await node.until_up()
            assert status["store"]["last_seq"] == EVENTS


async def leading(nodes: list[NodeProcess]) -> NodeProcess:
    """Wait until all serve and one leads; return it."""
    for node in nodes:
        await node.until_up()
    with trio.fail_after(SETTLE_S_MAX):
        while True:
            for node in nodes:
                if (await node.until_up())["role"] == "leader":
                    return node
            await trio.sleep(0.02)
