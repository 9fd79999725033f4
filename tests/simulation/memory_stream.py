"""An event stream in memory: the server's side of the simulator's `Source`.

Enters: published messages; faults. Leaves: what JetStream would show of a stream of any retention.
Never: threads, asyncio, sockets, real time.

All nodes of a simulation share it. As with JetStream, consumers belong to the server:

- **workqueue**: one durable consumer. Sessions of two nodes compete for it by its name, and the one
  that began last has made it anew. What it does not have on its way cannot be acknowledged.
- **interest**: each session has a durable of its own, made before the older ones are deleted. What
  no consumer waits for is gone, and what was on its way to a deleted one nobody can acknowledge.
- **limits**: each session has an ephemeral one behind the sequence that it named, and messages stay
  until the stream deletes the oldest, read or not.
"""

from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import trio

from noti.ports import Clock
from noti.publishing.nats.ports import NO_HEADERS, DeadLetter, Headers, SourceMessage

Retention: TypeAlias = Literal["workqueue", "interest", "limits"]


class Delivery(NamedTuple):
    """A message on its way."""

    consumer_seq: int
    message: SourceMessage


class Consumer:
    """The server's side of a consumer."""

    def __init__(self, pending: deque[SourceMessage]) -> None:
        self.pending = pending
        self.delivered = 0
        self.outstanding: dict[int, SourceMessage] = {}
        """Delivered, and neither acknowledged nor refused."""

    def take(self) -> Delivery:
        """Return the next message, as to one more pull."""
        self.delivered += 1
        message = self.pending.popleft()
        self.outstanding[message.seq] = message
        return Delivery(self.delivered, message)

    def deliver_again(self) -> int:
        """Have what is on its way come again, before all else; return how much that is.

        As when somebody refuses it (nak), or AckWait is over.
        """
        again = [self.outstanding.pop(seq) for seq in sorted(self.outstanding)]
        self.pending.extendleft(reversed(again))
        return len(again)

    def forget(self, sequence: int) -> None:
        """Deliver this message never again."""
        self.outstanding.pop(sequence, None)
        if self.pending and self.pending[0].seq <= sequence:
            self.pending = deque(one for one in self.pending if one.seq != sequence)


class MemoryStream:
    """The server: a stream and its consumers."""

    def __init__(
        self,
        clock: Clock,
        trace: Callable[[str], None] = lambda line: None,
        *,
        retention: Retention = "workqueue",
        name: str = "memory",
        dead_letters: dict[str, DeadLetter] | None = None,
    ) -> None:
        self.retention = retention
        self.name = name
        self.dead_letters: dict[str, DeadLetter] = {} if dead_letters is None else dead_letters
        """Copies by their ids: a repeated one is one."""
        self._clock = clock
        self._trace = trace
        self._generation = 1
        self._last_seq = 0
        self._messages: dict[int, SourceMessage] = {}
        self._ids: dict[str, int] = {}
        self._consumers: list[Consumer] = []
        self._late: list[tuple[Consumer, int]] = []
        """Acknowledgements that are still on their way."""
        self._up = True
        self._changed = trio.Event()
        self.removed: Callable[[SourceMessage], None] = lambda message: None
        """Hears what was acknowledged or terminated."""
        self.loses: Callable[[], bool] = lambda: False
        """Whether an acknowledgement is lost on its way; the message comes again."""
        self.holds: Callable[[], bool] = lambda: False
        """Whether one arrives only after others have begun to read."""
        self._delivered: set[int] = set()
        self.happened: Callable[[str], None] = lambda fault: None
        """Hears of each fault when it takes effect."""

    @property
    def clock(self) -> Clock:
        """The clock that fetches wait on."""
        return self._clock

    @property
    def acknowledges(self) -> bool:
        """Whether messages leave when they are acknowledged."""
        return self.retention != "limits"

    @property
    def identity(self) -> str:
        """What sessions report as the stream."""
        return self.identities[-1]

    @property
    def identities(self) -> list[str]:
        """All that it ever had, oldest first."""
        return [f"{self.name}@{number}" for number in range(1, self._generation + 1)]

    @property
    def up(self) -> bool:
        """Whether the server can be reached."""
        return self._up

    @property
    def first_seq(self) -> int:
        """The oldest sequence that is there; one more than the newest when nothing is."""
        return min(self._messages, default=self._last_seq + 1)

    @property
    def last_seq(self) -> int:
        """The newest sequence."""
        return self._last_seq

    @property
    def unacknowledged(self) -> list[int]:
        """Sequences that are still in the stream."""
        return sorted(self._messages)

    @property
    def consumer(self) -> Consumer:
        """The consumer that was made last."""
        return self._consumers[-1]

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str | None = None,
        headers: Headers = NO_HEADERS,
    ) -> int:
        """Append a message and return its sequence; the same id again returns the first one's."""
        if message_id is not None and message_id in self._ids:
            return self._ids[message_id]
        self._last_seq += 1
        message = SourceMessage(
            self._last_seq,
            subject,
            payload,
            headers if message_id is None else {**headers, "nats-msg-id": [message_id]},
            published_ms=self._clock.wall_ms(),
        )
        if message_id is not None:
            self._ids[message_id] = self._last_seq
        if self.retention == "interest" and not self._consumers:
            self.happened("a message was published that no consumer was there for")
            return self._last_seq
        self._messages[self._last_seq] = message
        for consumer in self._consumers:
            consumer.pending.append(message)
        self._notify()
        return self._last_seq

    def stop(self) -> None:
        """Begin an outage: every session breaks, nobody can open one."""
        self._trace(f"source {self.name} stopped")
        self._up = False
        self._notify()

    def start(self) -> None:
        """End the outage; messages and durables are as they were, sessions are not."""
        self._trace(f"source {self.name} started")
        self.happened("the source was restarted")
        self._up = True
        if not self.acknowledges:
            self._consumers.clear()
        self._notify()

    def recreate(self) -> None:
        """Delete the stream and make it again: sequences start at 1, the identity is new."""
        self._generation += 1
        self._last_seq = 0
        for container in (self._messages, self._delivered, self._ids, self._consumers, self._late):
            container.clear()
        self._notify()

    def begin(self, after_seq: int = 0) -> Consumer:
        """Make a consumer, which delivers all there is; behind `after_seq`, if that can be.

        On a work queue, the one before is gone.
        """
        if self.retention == "workqueue":
            self._consumers.clear()
            after_seq = 0
        consumer = Consumer(deque(one for one in self.pending() if one.seq > after_seq))
        self._consumers.append(consumer)
        if self.retention == "workqueue":
            self._notify()
        return consumer

    def end_before(self, consumer: Consumer) -> None:
        """Delete the consumers that were made before this one; see retention by interest."""
        if consumer in self._consumers:
            del self._consumers[: self._consumers.index(consumer)]
            self._drop_unwanted()
            self._notify()

    def end(self, consumer: Consumer | None) -> None:
        """Delete the ephemeral consumer of a session, if it had one."""
        if not self.acknowledges and consumer in self._consumers:
            self._consumers.remove(consumer)

    def is_there(self, consumer: Consumer | None) -> bool:
        """Whether this consumer was not deleted."""
        return consumer in self._consumers

    def interrupt(self) -> None:
        """Have every session end, and deliver again what is not acknowledged.

        As when an operator deletes consumers, or a server that had them in memory restarts. One
        with interest retention would lose its messages with the last consumer: there, it is AckWait
        that is over.
        """
        match self.retention:
            case "workqueue":
                self.begin()
            case "interest":
                self.deliver_again()
            case "limits":
                self._consumers.clear()
                self._notify()

    def take_elsewhere(self, count: int) -> int:
        """Have another reader of the newest consumer take messages; return how many."""
        if not self.acknowledges or not self._consumers:
            return 0
        count = min(count, len(self.consumer.pending))
        for _ in range(count):
            self._delivered.add(self.consumer.take().message.seq)
        return count

    def deliver_again(self) -> int:
        """Have all that is on its way come again, before later messages; return how much."""
        count = 0
        if self.acknowledges:
            count = sum(consumer.deliver_again() for consumer in self._consumers)
            self._notify()
        return count

    def expire(self, count: int) -> list[SourceMessage]:
        """Delete the oldest messages, read or not; return them."""
        gone = self.pending()[:count]
        for message in gone:
            del self._messages[message.seq]
            for consumer in self._consumers:
                consumer.forget(message.seq)
        return gone

    def acknowledge(self, consumer: Consumer | None, sequence: int) -> None:
        """Take the acknowledgement, or the termination, of a message that `consumer` delivered."""
        message = self._messages.get(sequence)
        if message is None or consumer is None:
            return
        self.removed(message)
        if not self.acknowledges:
            return
        if self.loses():
            self.happened("an acknowledgement was lost")
        elif self.holds():
            self._late.append((consumer, sequence))
        else:
            self._settle(consumer, sequence)

    def _settle(self, consumer: Consumer, sequence: int) -> None:
        if not self.is_there(consumer):
            self.happened("a message of a deleted consumer was acknowledged")
            if self.retention == "interest" or not self._consumers:
                return  # nobody listens there
            consumer = self.consumer  # it has the name of the old one
        if sequence in consumer.outstanding:
            consumer.forget(sequence)
            if self.retention == "workqueue":
                self._messages.pop(sequence, None)
            self._drop_unwanted()

    def note_delivery(self, sequence: int) -> None:
        """Remember that a reader has got this message."""
        if sequence in self._delivered:
            self.happened("a message was delivered again")
        self._delivered.add(sequence)
        arrive = [one for one in self._late if one[0] is not self.consumer]
        self._late = [one for one in self._late if one[0] is self.consumer]
        for consumer, late in arrive:
            self._settle(consumer, late)

    def pending(self) -> list[SourceMessage]:
        """Return all that is in the stream: on a work queue, what is not acknowledged."""
        return [self._messages[seq] for seq in sorted(self._messages)]

    def _drop_unwanted(self) -> None:
        if self.retention == "interest":
            wanted = {
                seq
                for consumer in self._consumers
                for seq in (*consumer.outstanding, *(one.seq for one in consumer.pending))
            }
            self._messages = {seq: one for seq, one in self._messages.items() if seq in wanted}

    async def wait_changed(self, deadline: float) -> None:
        """Return at the next change, or at `deadline`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_event, self._changed, nursery.cancel_scope)
            await self._clock.sleep_until(deadline)
            nursery.cancel_scope.cancel()

    async def _wait_event(self, changed: trio.Event, scope: trio.CancelScope) -> None:
        await changed.wait()
        scope.cancel()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
