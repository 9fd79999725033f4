"""What is published to JetStream: two streams, four payloads, and what can never be an event.

Enters: numbers. Leaves: messages that nodes make numbered events of, and dead letters of some.
Never: a message that is published again with another content.

The stream `jobs` is a work queue, which a node makes, with payloads as bb-dist-noti's. The other
one is made here, with a retention by the seed; its messages are text, JSON and CloudEvents in turn.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from noti.asyncio_loop import AsyncioLoop
from noti.errors import Unavailable
from noti.publishing.nats import dead_letter
from noti.rpc.generated.category.v1 import CategoryMessage
from tests.bench.load.mark import Mark, event_text
from tests.soak import ledger
from tests.soak.publishers import ANSWER_S_MAX, Feed, ignore

JOBS: Final = "jobs"
MIXED: Final = "mixed"
"""The second stream."""
TOPIC: Final = "https://example.com/soak/{2}"

CONFIG: Final = f"""\
[[nats_streams]]
name = "{JOBS}"
[[nats_streams.subjects]]
subject = "{JOBS}.noti.>"
decoder = "category"

[[nats_streams]]
name = "{MIXED}"
[[nats_streams.subjects]]
subject = "{MIXED}.text"
decoder = "text"
[[nats_streams.subjects]]
subject = "{MIXED}.json"
decoder = "json"
topic = "{TOPIC}"
[[nats_streams.subjects]]
subject = "{MIXED}.event"
decoder = "cloudevents"
"""
"""What nodes are told to read."""

PER_S: Final = 15
"""To each of the two."""
AT_ONCE: Final = 500
"""Messages of a burst that wait for their acknowledgement together."""
GARBAGE_EVERY: Final = 20
"""With each twentieth number comes a message that can never be an event."""
RETENTIONS: Final = ("limits", "interest")
LETTERS_ROUND: Final = 500
READ_S_MAX: Final = 2.0


def retention_of(seed: int) -> str:
    """Return the retention of the second stream."""
    return random.Random(f"retention:{seed}").choice(RETENTIONS)


class Message(NamedTuple):
    """What is published."""

    subject: str
    payload: bytes
    headers: dict[str, str]


def job(run: str, number: int) -> Message:
    """Return a message of bb-dist-noti's kind."""
    mark = Mark(run, ledger.key_of(ledger.JETSTREAM, number), 0)
    payload = bytes(CategoryMessage(number % 2**32, str(mark), "soak"))
    return Message(f"{JOBS}.noti.soak", payload, {"Nats-Msg-Id": f"{run}-j{number}"})


def mixed(run: str, number: int) -> Message:
    """Return text with its topic in a header, JSON, or a CloudEvent."""
    data = event_text(Mark(run, ledger.key_of(ledger.MIXED, number), 0))
    headers = {"Nats-Msg-Id": f"{run}-m{number}"}
    match number % 3:
        case 0:
            headers |= {"Noti-Topic": f"https://example.com/soak/{number % 7}", "Noti-Type": "soak"}
            return Message(f"{MIXED}.text", data.encode(), headers)
        case 1:
            return Message(f"{MIXED}.json", data.encode(), headers)
        case _:
            event = {"specversion": "1.0", "id": f"e{number}", "source": "soak", "type": "soak"}
            event["subject"] = "soak"
            text = json.dumps(event)[:-1] + f', "data": {data}}}'
            return Message(f"{MIXED}.event", text.encode(), headers)


def garbage(message: Message) -> Message:
    """Return what can never be an event, beside this message."""
    is_text = message.subject.endswith(".text")
    payload = b"\xff" if is_text else b"\x08"
    return Message(message.subject, payload, {"Nats-Msg-Id": garbage_id(message)})


def garbage_id(message: Message) -> str:
    """Return the id of the garbage that is published beside a message."""
    return f"{message.headers['Nats-Msg-Id']}-garbage"


class JetStreamFeed(Feed):
    """Publishes to one of the two streams."""

    def __init__(self, asyncio_loop: AsyncioLoop, url: str, run: str, stream: str) -> None:
        super().__init__(asyncio_loop, PER_S, AT_ONCE)
        self._url = url
        self._run = run
        self._stream = stream

    def message(self, number: int) -> Message:
        """Return the message of this number."""
        return (job if self._stream == JOBS else mixed)(self._run, number)

    def garbage_ids(self) -> list[str]:
        """Return the ids of all acknowledged messages that can never be events."""
        numbers = range(GARBAGE_EVERY, self.acknowledged + 1, GARBAGE_EVERY)
        return [garbage_id(self.message(number)) for number in numbers]

    async def _connect_aio(self) -> "_JetStream":
        client = await connect_aio(self._url)
        jetstream = client.jetstream(timeout=ANSWER_S_MAX)
        try:
            info = await jetstream.stream_info(self._stream)
            is_by_interest = info.config.retention == api.RetentionPolicy.INTEREST
            if is_by_interest and not info.state.consumer_count:
                raise Unavailable("nobody reads: what is published now is kept for nobody")
        except BaseException:
            await client.close()
            raise
        return _JetStream(client, jetstream, self)


class _JetStream:
    def __init__(self, client: Client, jetstream: JetStreamContext, feed: JetStreamFeed) -> None:
        self._client = client
        self._jetstream = jetstream
        self._feed = feed

    async def publish(self, numbers: Sequence[int]) -> int:
        """One connection keeps their order; what is stored of them is so from the first."""
        messages: list[Message] = []
        for number in numbers:
            message = self._feed.message(number)
            messages += [garbage(message)] if number % GARBAGE_EVERY == 0 else []
            messages.append(message)
        async with asyncio.timeout(ANSWER_S_MAX):
            futures = [
                await self._jetstream.publish_async(subject, payload, headers=headers)
                for subject, payload, headers in messages
            ]
            await asyncio.gather(*futures)
        return len(numbers)

    async def close(self) -> None:
        await self._client.close()


async def connect_aio(url: str) -> Client:
    """Return a client that ends with its connection."""
    client = Client()
    await client.connect(
        url,
        error_cb=ignore,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        reconnect_time_wait=0,
        connect_timeout=1,
    )
    return client


async def make_stream_aio(url: str, retention: str) -> None:
    """Make the second stream."""
    client = await connect_aio(url)
    try:
        await client.jetstream().add_stream(
            name=MIXED, subjects=[f"{MIXED}.*"], retention=api.RetentionPolicy(retention)
        )
    finally:
        await client.close()


@dataclass(frozen=True)
class AtTheEnd:
    """What JetStream holds when all is over."""

    letters: Mapping[str, int]
    """How many dead letters there are of each message, by its id."""
    twice: int
    """Copies of one message of a stream beyond the first."""
    left: int
    """Messages in streams that drop what is acknowledged."""


async def look_aio(url: str) -> AtTheEnd:
    """Return what is in the streams now."""
    client = await connect_aio(url)
    try:
        jetstream = client.jetstream(timeout=ANSWER_S_MAX)
        left = 0
        for name in (JOBS, MIXED):
            info = await jetstream.stream_info(name)
            if info.config.retention != api.RetentionPolicy.LIMITS:
                left += info.state.messages
        letters, copies = await _letters_aio(jetstream)
        return AtTheEnd(letters, sum(copies.values()) - len(copies), left)
    finally:
        await client.close()


async def _letters_aio(jetstream: JetStreamContext) -> tuple[Counter[str], Counter[str]]:
    letters: Counter[str] = Counter()
    copies: Counter[str] = Counter()
    try:
        info = await jetstream.stream_info(dead_letter.STREAM_NAME)
    except nats.js.errors.NotFoundError:
        return letters, copies
    reader = await jetstream.pull_subscribe(dead_letter.SUBJECTS, stream=dead_letter.STREAM_NAME)
    deadline = time.monotonic() + ANSWER_S_MAX * 4
    while copies.total() < info.state.messages and time.monotonic() < deadline:
        try:
            batch = await reader.fetch(LETTERS_ROUND, timeout=READ_S_MAX)
        except nats.errors.TimeoutError:
            continue
        for message in batch:
            headers = message.headers or {}
            letters[headers.get(dead_letter.HEADER_ID, "")] += 1
            copies[headers[dead_letter.HEADER_MESSAGE_ID]] += 1
            await message.ack()
    return letters, copies
