"""Promises to a web worker about what it asks its node for."""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from noti.errors import Overloaded
from noti.http.answers import Answer
from noti.web_workers import requests
from noti.web_workers.link import Link
from noti.web_workers.messages import Answered, Ask, Message, Page, Read, Submit
from noti.web_workers.requests import WorkersRequests
from noti.web_workers.worker_process import WorkerProcess
from tests.web_workers.stage import Commands


async def page(path: str, _query: str) -> Answer:
    if path == "/metrics":
        raise RuntimeError("what nobody foresaw")
    return Answer(200, [("A", "b")], path.encode())


def nothing() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", ""])


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[WorkerProcess, list[Message]]]:
    """Yield a worker, which is none, and what it is told."""
    ours, theirs = socket.socketpair()
    process = nothing()
    link, other = (
        Link(trio.SocketStream(trio.socket.from_stdlib_socket(one))) for one in (ours, theirs)
    )
    told: list[Message] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, told.append)
        nursery.start_soon(other.run, told.append)
        yield WorkerProcess(1, process, link, nursery), told
        nursery.cancel_scope.cancel()
    process.wait()
    ours.close()
    theirs.close()


async def test_what_was_applied_is_told_before_an_answer() -> None:
    order: list[str] = []
    commands = Commands(lambda command: order.append(f"apply {command.decode()}"))
    there = WorkersRequests(commands, page, lambda: order.append("flush"))
    async with asking() as (worker, told):
        there.take(worker, Submit(7, b"a"))
        assert order == ["apply a", "flush"]
        there.take(worker, Read(8))
        commands.failures = [Overloaded("too much")]
        there.take(worker, Submit(9, b"b"))
        await trio.testing.wait_all_tasks_blocked()
        assert set(told) == {
            Answered(7, 1, "", ""),
            Answered(8, 0, "", ""),
            Answered(9, 0, "Overloaded", "too much"),
        }


async def test_pages_come_from_the_node_and_one_that_fails_harms_nobody() -> None:
    there = WorkersRequests(Commands(), page, lambda: None)
    async with asking() as (worker, told):
        there.take(worker, Ask(1, "/metrics", ""))
        there.take(worker, Ask(2, "/liveness", ""))
        await trio.testing.wait_all_tasks_blocked()
        assert [(one.number, one.body) for one in told if isinstance(one, Page)] == [
            (2, b"/liveness")
        ]
        assert worker.under_way == 0


async def test_more_requests_than_one_worker_may_have_are_refused() -> None:
    there = WorkersRequests(Commands(), page, lambda: None)
    async with asking() as (worker, told):
        worker.under_way = requests.REQUESTS_MAX
        there.take(worker, Read(1))
        there.take(worker, Ask(2, "/liveness", ""))
        await trio.testing.wait_all_tasks_blocked()
        assert [one.error for one in told if isinstance(one, Answered)] == ["Overloaded"]
        assert [one.status for one in told if isinstance(one, Page)] == [503]
