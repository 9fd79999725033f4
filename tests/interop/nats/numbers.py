"""Publishes 1, 2, 3, … to JetStream as fast as it takes them, and knows where each was stored.

The payload is text that `tests.interop.traffic.Subscriber` reads: a JSON object with the number as
`user_id`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence

import nats.errors
import nats.js.errors
import trio
from nats.js import JetStreamContext, api

from noti.asyncio_loop import AsyncioLoop
from tests.interop.nats_client import connect_aio
from tests.interop.traffic import shown

STREAM = "numbers"
SUBJECT = "numbers.all"
ROUND = 500
"""Messages on their way at once, as a fast publisher has them."""
LEAD_MAX = 30_000
"""How far it runs ahead of the slowest browser. So there always is something to read, and what a
browser missed while it was away is never more than history holds."""
ACK_S_MAX = 3.0


class NumberPublisher:
    """The next number is sent when the round before is stored; one that may be lost, again."""

    def __init__(
        self, asyncio_loop: AsyncioLoop, urls: Sequence[str], seen_by_all: Callable[[], int]
    ) -> None:
        """`seen_by_all` is how many the slowest browser has."""
        self.sequences: list[int] = []
        """Where the stream has number 1, 2, …"""
        self.uncertain: set[int] = set()
        """Numbers that were sent again and stored then: perhaps for the second time, as a server
        that restarted forgets the ids of messages that are gone."""
        self.sessions = 0
        self._sent = 0
        self._asyncio_loop = asyncio_loop
        self._urls = list(urls)
        self._seen_by_all = seen_by_all
        self._stopping = False
        self._stopped = trio.Event()

    @property
    def acknowledged(self) -> int:
        """The last number that is stored, as are all below it."""
        return len(self.sequences)

    def problem(self, numbers: Sequence[int]) -> str | None:
        """Say what is wrong if these are not all that is stored, once, in the stream's order."""
        counted = Counter(numbers)
        missing = [one for one in range(1, self.acknowledged + 1) if one not in counted]
        repeated = [one for one, count in counted.items() if count > 1]
        if missing or repeated:
            return f"missing {shown(missing)}; repeated {shown(repeated)}"
        return self.problem_of_order(numbers)

    def problem_of_order(self, numbers: Sequence[int]) -> str | None:
        """Say which of these numbers came behind one that the stream has later."""
        latest = before = 0
        for number in numbers:
            sequence = self.sequences[number - 1]
            if sequence <= latest:
                return f"{number}, sequence {sequence}, came behind {before}, sequence {latest}"
            # The first copy of an uncertain number may be the one that was shown: it is no later
            # than the one that we know, and says nothing about those behind it.
            if number not in self.uncertain:
                latest, before = sequence, number
        return None

    async def make_stream(self, retention: str, replicas: int) -> None:
        """Make the stream, once the servers can."""
        await self._asyncio_loop.call(self._make_stream_aio, retention, replicas)

    async def stream_info(self) -> api.StreamInfo:
        """Return what the server knows of the stream."""
        info: api.StreamInfo = await self._asyncio_loop.call(self._stream_info_aio)
        return info

    async def step_down(self) -> int:
        """Have the leaders of the stream and of its consumers step down; return how many did."""
        return int(await self._asyncio_loop.call(self._step_down_aio))

    async def run(self) -> None:
        """Publish until stopped; servers may come and go."""
        while not self._is_done():
            await self._asyncio_loop.call(self._session_aio)
            await trio.sleep(0.05)
        self._stopped.set()

    async def stop(self) -> None:
        """Stop once all that was sent is stored."""
        self._stopping = True
        await self._stopped.wait()

    def _is_done(self) -> bool:
        return self._stopping and self._sent == self.acknowledged

    async def _session_aio(self) -> None:
        self.sessions += 1
        try:
            client = await connect_aio(self._urls)
            try:
                while not self._is_done():
                    await self._round_aio(client.jetstream(publish_async_max_pending=2 * ROUND))
            finally:
                await client.close()
        except (nats.errors.Error, OSError, TimeoutError):
            return  # the next session goes on behind what is stored

    async def _round_aio(self, jetstream: JetStreamContext) -> None:
        first = self.acknowledged + 1
        last = self._sent if self._stopping else first + ROUND - 1
        while last > self._seen_by_all() + LEAD_MAX and not self._stopping:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        sent_before, self._sent = self._sent, max(self._sent, last)
        futures = [
            await jetstream.publish_async(
                SUBJECT,
                b'{"user_id":%d}' % number,
                headers={"Nats-Msg-Id": f"number-{number}"},
            )
            for number in range(first, last + 1)
        ]
        done, _ = await asyncio.wait(futures, timeout=ACK_S_MAX)
        for one in done:
            one.exception()  # asyncio tells of those that nobody looked at
        for number, future in enumerate(futures, start=first):
            if not future.done():
                raise TimeoutError
            stored = future.result()
            self.sequences.append(stored.seq)
            if number <= sent_before and not stored.duplicate:
                self.uncertain.add(number)

    async def _make_stream_aio(self, retention: str, replicas: int) -> None:
        client = await connect_aio(self._urls)
        try:
            async with asyncio.timeout(30):
                while True:
                    try:
                        await client.jetstream(timeout=1).add_stream(
                            name=STREAM,
                            subjects=[f"{STREAM}.>"],
                            retention=api.RetentionPolicy(retention),
                            num_replicas=replicas,
                        )
                        return
                    except (nats.errors.Error, TimeoutError):
                        await asyncio.sleep(0.1)  # the servers have no leader yet
        finally:
            await client.close()

    async def _stream_info_aio(self) -> api.StreamInfo:
        client = await connect_aio(self._urls)
        try:
            return await client.jetstream(timeout=2).stream_info(STREAM)
        finally:
            await client.close()

    async def _step_down_aio(self) -> int:
        try:
            client = await connect_aio(self._urls)
        except (nats.errors.Error, OSError, TimeoutError):
            return 0
        try:
            consumers = await client.jetstream(timeout=1).consumers_info(STREAM)
            places = [f"STREAM.LEADER.STEPDOWN.{STREAM}"]
            places += [f"CONSUMER.LEADER.STEPDOWN.{STREAM}.{one.name}" for one in consumers]
            answers = [
                await client.request(f"{api.DEFAULT_PREFIX}.{place}", b"", timeout=1)
                for place in places
            ]
            return sum(json.loads(answer.data).get("success", False) for answer in answers)
        except (nats.errors.Error, OSError, TimeoutError):
            return 0
        finally:
            await client.close()
