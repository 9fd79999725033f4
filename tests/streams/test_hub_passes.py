"""Whoever follows events learns when they were sent, and to how many."""

import socket

import trio

from noti.history.selectors import ALL_TOPICS
from noti.streams.feed import Audience, View
from noti.streams.open_streams import Reader
from tests.http.stage import LIMIT_S, hub, notification, running, selecting, show
from tests.http.tls_stage import plain_pair

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))


async def test_the_end_of_a_pass_is_told_and_streams_are_counted_for_an_event() -> None:
    there, told, ends = hub(), list[int](), list[socket.socket]()
    there.passed = told.append
    async with running(there):
        for audience in (ALL, Audience(View.MERCURE, selecting("t1"))):
            far, near = plain_pair(4096, there.config.send_buffer_bytes)
            ends.append(near)
            there.adopt(far, Reader(audience, 0, "127.0.0.1"))
        show(there, 1, 3, 10)
        with trio.fail_after(LIMIT_S):
            while 3 not in told:  # noqa: ASYNC110
                await trio.sleep(0.001)
        event = notification(4)
        assert there.audience_of(event._replace(topics=("t1",))) == 2
        assert there.audience_of(event._replace(topics=("t3",))) == 1
    for end in ends:
        end.close()
