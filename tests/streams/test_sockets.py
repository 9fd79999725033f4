"""When the hub is woken by its sockets, over real ones, and when it is not."""

import select

import pytest
import trio
import trio.testing

from noti.history.selectors import ALL_TOPICS
from noti.streams.feed import Audience, View
from noti.streams.hub import Hub
from noti.streams.open_streams import Reader
from noti.streams.sockets import Wakeups
from tests.http.stage import hub, ids, notifications, running, until
from tests.http.tls_stage import plain_pair

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))


def is_awake(there: Hub) -> bool:
    """Whether the hub has something to look at."""
    epoll = there._wakeups._epoll
    assert epoll is not None
    return bool(select.select([epoll], [], [], 0)[0])


async def test_a_stream_that_has_all_that_there_is_does_not_wake_the_hub() -> None:
    pairs = [plain_pair(4096, 4096) for _ in range(4)]
    async with running(hub()) as there:
        there.publish(notifications(1, 3))
        for number, (far, _) in enumerate(pairs):
            there.adopt(far, Reader(ALL, 3, ""))
            assert is_awake(there) == (number == 0), "only the first one has a group to be made"
            await until(lambda: not there._sending.sendable)
            await trio.testing.wait_all_tasks_blocked()
        there.publish(notifications(4, 4))
        for _, near in pairs:
            await trio.lowlevel.wait_readable(near)
            assert ids(near.recv(4096).decode()) == ["id-4"]
    for _, near in pairs:
        near.close()


async def test_a_hang_up_before_the_hub_has_the_socket_is_noticed() -> None:
    far, near = plain_pair(4096, 4096)
    near.close()
    async with running(hub()) as there:
        there.adopt(far, Reader(ALL, there.feed.newest_seq, ""))
        await until(lambda: there.clients == 0)


@pytest.mark.parametrize("reads", [False, True])
def test_room_is_reported_from_when_it_is_asked_for_also_if_it_is_there_already(
    *, reads: bool
) -> None:
    far, near = plain_pair(4096, 4096)
    wakeups = Wakeups()
    with far, near, wakeups.opened():
        fd = far.fileno()
        wakeups.watch(fd, reads=reads)
        assert wakeups.reports() == []
        wakeups.watch_room(fd, reads=reads)
        [(reported, events)] = wakeups.reports()
        assert reported == fd
        assert events & select.EPOLLOUT
        assert wakeups.reports() == [], "once"
        near.send(b"x")
        assert any(events & select.EPOLLIN for _, events in wakeups.reports()) == reads
        wakeups.forget(fd)
        wakeups.watch(fd)
        wakeups.watch_room(fd)
        assert [events & select.EPOLLOUT for _, events in wakeups.reports()] == [select.EPOLLOUT], (
            "a descriptor is given to another socket"
        )
