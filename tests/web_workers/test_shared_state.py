"""Promises of the state that web workers share: all of it, in order, encoded once."""

import socket

import trio
import trio.testing

from noti.history.commands import Publish, encode
from noti.history.notification import Event
from noti.history.store import Store, StoreDecoder
from noti.tracing.trail import EventTrail
from noti.web_workers.link import Link
from noti.web_workers.messages import Applied, Message, Start, StateEnd, StatePiece
from noti.web_workers.shared_state import SharedState

START = Start(b"", 1, 1, "n1")


def command(number: int) -> bytes:
    return encode(Publish((Event(0, str(number), ("t",), "x" * 1000, 1_700_000_000_000),)))


class Mirror:
    """What a worker makes of what it is told."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.applied: list[int] = []
        """How many commands each message had."""
        self.log_indexes: list[int] = []
        self._decoder = StoreDecoder()

    def take(self, message: Message) -> None:
        match message:
            case StatePiece(piece):
                self._decoder.feed(piece)
            case StateEnd():
                self.store = self._decoder.finish()
                self._decoder = StoreDecoder()
            case Applied(commands, log_indexes):
                assert self.store is not None
                self.applied.append(len(commands))
                self.log_indexes += log_indexes
                for one in commands:
                    self.store.apply(one)
            case _:
                pass


async def test_a_worker_that_joins_in_the_middle_has_the_same_state() -> None:
    store = Store()
    state = SharedState(store, EventTrail(lambda: 0))
    for number in range(500):
        state.apply(command(number))
    ours, theirs = socket.socketpair()
    link, end = (
        Link(trio.SocketStream(trio.socket.from_stdlib_socket(one))) for one in (ours, theirs)
    )
    mirror = Mirror()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(state.run)
        nursery.start_soon(link.run, mirror.take)
        nursery.start_soon(end.run, mirror.take)
        state.join(link, START)
        for number in range(500, 1000):
            state.apply(command(number), number + 7)
        await trio.testing.wait_all_tasks_blocked()
        assert mirror.store is not None
        assert mirror.store.digest() == store.digest()
        assert mirror.applied == [500], "what is applied in one turn is told at once"
        assert mirror.log_indexes == list(range(507, 1007))

        other = Store()
        for number in range(2000, 2010):
            other.apply(command(number))
        state.restore(other)
        state.apply(command(3000))
        await trio.testing.wait_all_tasks_blocked()
        assert mirror.store.digest() == store.digest()

        state.leave(link)
        state.apply(command(3001))
        await trio.testing.wait_all_tasks_blocked()
        assert mirror.store.digest() != store.digest()
        nursery.cancel_scope.cancel()
    ours.close()
    theirs.close()
