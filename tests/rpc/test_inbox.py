"""Frames taken off a stream, whatever the pieces in which they come."""

import random
from collections.abc import Sequence

import pytest
import trio

from noti.errors import MessageInvalid, PeerUnavailable
from noti.rpc.inbox import FRAMES_AT_ONCE, Inbox, prefixed


def inbox_of(acknowledged: list[int]) -> Inbox:
    inbox = Inbox(acknowledged.append)
    inbox.bytes_max = 1000
    return inbox


async def test_frames_are_whole_whatever_the_pieces_in_which_they_come() -> None:
    rng = random.Random(1)
    frames = [rng.randbytes(rng.randrange(200)) for _ in range(100)]
    data = prefixed(frames)
    acknowledged: list[int] = []
    inbox = inbox_of(acknowledged)
    received: list[bytes] = []

    def take(some: Sequence[bytes]) -> bool:
        received.extend(some)
        return True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.receive, take, trio.Event)
        await trio.testing.wait_all_tasks_blocked()
        while data:
            piece = data[: rng.randrange(1, 300)]
            data = data[len(piece) :]
            inbox.add(piece, len(piece))
        inbox.eof()
    assert received == frames
    assert sum(acknowledged) == len(prefixed(frames)), "the peer may send as much again"


async def test_what_nobody_takes_is_not_acknowledged() -> None:
    acknowledged: list[int] = []
    inbox = inbox_of(acknowledged)
    data = prefixed([b"x"] * 2 * FRAMES_AT_ONCE)
    inbox.add(data, len(data))
    assert await inbox.receive(lambda _: False, trio.Event)
    assert acknowledged == []


async def test_cancelled_reading_loses_nothing() -> None:
    inbox = inbox_of([])
    data = prefixed([b"abc"])
    inbox.add(data[:6], 6)
    received: list[Sequence[bytes]] = []

    def take(frames: Sequence[bytes]) -> bool:
        received.append(frames)
        return False

    with trio.move_on_after(0):
        await inbox.receive(take, trio.Event)
    inbox.add(data[6:], len(data) - 6)
    assert await inbox.receive(take, trio.Event)
    assert received == [[b"abc"]]


@pytest.mark.parametrize(
    "data", [b"\1" + prefixed([b"a"])[1:], prefixed([bytes(1001)]), prefixed([b"abc"])[:-1]]
)
async def test_frame_that_is_compressed_too_long_or_cut_off_is_invalid(data: bytes) -> None:
    inbox = inbox_of([])
    inbox.add(data, len(data))
    inbox.eof()
    with pytest.raises(MessageInvalid):
        await inbox.receive(lambda _: True, trio.Event)


async def test_who_waits_learns_that_the_stream_broke() -> None:
    inbox = inbox_of([])
    with pytest.RaisesGroup(PeerUnavailable):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.receive, lambda _: True, trio.Event)
            await trio.testing.wait_all_tasks_blocked()
            inbox.fail(PeerUnavailable("it broke"))


async def test_what_came_whole_is_taken_before_the_end_of_the_connection_is_told() -> None:
    inbox = inbox_of([])
    data = prefixed([b"a", b"b"]) + prefixed([b"cut off"])[:-1]
    inbox.add(data, len(data))
    inbox.end(ConnectionResetError("reset"))
    received: list[bytes] = []

    def take(frames: Sequence[bytes]) -> bool:
        received.extend(frames)
        return True

    with pytest.raises(ConnectionResetError):
        await inbox.receive(take, trio.Event)
    assert received == [b"a", b"b"]
