"""Promises of what web workers are told about the limits of their node."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from noti.config import Config
from noti.errors import MessageInvalid
from noti.web_workers.limits import WorkersLimits
from noti.web_workers.link import Link
from noti.web_workers.messages import Allowance, Counts, Decoder, Heartbeat, Message
from noti.web_workers.worker_process import WorkerProcess


class Recorded(Link):
    """A link that nobody reads."""

    def take(self) -> list[Message]:
        data = b"".join(one for one in self._outbox if isinstance(one, bytes))
        self._outbox.clear()
        return Decoder().feed(data)


@contextmanager
def workers(count: int, nursery: trio.Nursery) -> Iterator[list[tuple[WorkerProcess, Recorded]]]:
    with subprocess.Popen(["true"]) as process:
        pairs = [socket.socketpair() for _ in range(count)]
        links = [Recorded(trio.SocketStream(trio.socket.from_stdlib_socket(a))) for a, _ in pairs]
        yield [
            (WorkerProcess(number, process, link, nursery), link)
            for number, link in enumerate(links, 1)
        ]
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


def limits(directory: Path, count: int) -> WorkersLimits:
    return WorkersLimits(Config(name="n1", data_dir=directory, sse_clients_max=100), count)


async def test_a_worker_gets_its_share_and_more_when_others_need_less(tmp_path: Path) -> None:
    there = limits(tmp_path, 2)
    async with trio.open_nursery() as nursery:
        with workers(2, nursery) as ((one, to_one), (two, to_two)):
            there.join(one)
            there.join(two)
            assert to_one.take() == to_two.take() == [Allowance(50)]
            there.reported(two, Heartbeat(0, 0.0, 50))
            there.reported(one, Heartbeat(40, 0.0, 50))
            assert (to_one.take(), to_two.take()) == ([], [Allowance(30)])
            there.reported(two, Heartbeat(0, 0.0, 30))
            assert (to_one.take(), to_two.take()) == ([Allowance(70)], [])
            there.leave(1)
            there.join(one)
            assert to_one.take() == [Allowance(70)], "what it had is kept for its successor"


async def test_what_clients_have_at_one_worker_is_told_to_the_others(tmp_path: Path) -> None:
    there = limits(tmp_path, 3)
    async with trio.open_nursery() as nursery:
        with workers(3, nursery) as ((one, to_one), (two, to_two), (three, to_three)):
            there.join(one)
            there.join(two)
            there.counted(one, Counts("streams", {"a": 2}))
            there.counted(two, Counts("streams", {"a": 1, "b": 1}))
            assert to_one.take()[1:] == [Counts("streams", {"a": 1, "b": 1})]
            assert to_two.take()[1:] == [Counts("streams", {"a": 2})]
            there.join(three)
            assert to_three.take()[1:] == [Counts("streams", {"a": 3, "b": 1})]
            there.leave(2)
            assert to_one.take() == [Counts("streams", {"a": 0, "b": 0})]
            assert Counts("streams", {"a": 2, "b": 0}) in to_three.take()
            with pytest.raises(MessageInvalid, match="not counted for"):
                there.counted(one, Counts("cats", {"a": 1}))
