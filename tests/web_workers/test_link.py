"""Promises of the socket between a node and a web worker."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from noti.errors import WorkerLost
from noti.web_workers.link import Link
from noti.web_workers.messages import Applied, Message, StateEnd, StatePiece, encode


@contextmanager
def pair() -> Iterator[tuple[Link, trio.SocketStream]]:
    ours, theirs = socket.socketpair()
    streams = [trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in (ours, theirs)]
    try:
        yield Link(streams[0]), streams[1]
    finally:
        for one in streams:
            one.socket.close()


async def test_messages_arrive_in_order_whatever_makes_them() -> None:
    with pair() as (one, end):
        other, received = Link(end), list[Message]()
        one.send(Applied([b"1"], [1]))
        one.send_each(encode(StatePiece(b"x" * 100_000)) for _ in range(20))
        one.send(StateEnd())
        one.send_encoded(encode(Applied([b"2"], [2])))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run, received.append)
            nursery.start_soon(other.run, received.append)
            with trio.fail_after(30):
                while not received or received[-1] != Applied([b"2"], [2]):
                    await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await end.aclose()
        pieces = [StatePiece(b"x" * 100_000)] * 20
        assert received == [Applied([b"1"], [1]), *pieces, StateEnd(), Applied([b"2"], [2])]
        assert one.waiting_bytes == 0


async def test_what_is_not_taken_is_counted_and_nobody_waits() -> None:
    with pair() as (one, end):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run, lambda _message: None)
            for _ in range(100):
                one.send(Applied([b"x" * 100_000], [3]))
            await trio.testing.wait_all_tasks_blocked()
            assert one.waiting_bytes > 5_000_000
            nursery.cancel_scope.cancel()
        await end.aclose()


async def test_the_end_of_the_other_side_is_an_error_of_ours() -> None:
    with pair() as (one, end):
        await end.aclose()
        with pytest.RaisesGroup(WorkerLost):
            await one.run(lambda _message: None)
