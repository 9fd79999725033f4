"""Browsers see what is wrong with a stream: they read forged ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.streams import sse
from tests.bench.load.mark import Mark
from tests.soak.browsers import Browsers
from tests.soak.ledger import RPC, key_of

RUN = "abc"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WAIT_S_MAX = 30.0

pytestmark = pytest.mark.slow


def frame(number: int) -> bytes:
    mark = Mark(RUN, key_of(RPC, number), 1)
    return sse.event_frame(f"id-{number}", f'{{"mark":"{mark}"}}')


def chunk(*numbers: int) -> bytes:
    return sse.chunk(b"".join(map(frame, numbers)))


async def report_of(stream: bytes, directory: Path, clients: int = 2) -> dict[str, Any]:
    """Return what browsers report that were all sent `stream`, once each has all of it."""
    deliveries = clients * stream.count(b"mark")
    async with browsing(stream, directory, clients) as browsers:
        with trio.fail_after(WAIT_S_MAX):
            while browsers.report.get("deliveries", 0) < deliveries:  # noqa: ASYNC110
                await trio.sleep(0.05)
        return browsers.report


@asynccontextmanager
async def browsing(
    stream: bytes, directory: Path, clients: int, *, ends: bool = False, gaps_allowed: bool = False
) -> AsyncIterator[Browsers]:
    async def serve(connection: trio.SocketStream) -> None:
        await connection.receive_some(4096)
        await connection.send_all(HEAD + stream)
        if ends:
            await connection.send_eof()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        address = listeners[0].socket.getsockname()
        browsers = Browsers()
        log = directory / "browsers.log"
        await nursery.start(browsers.run, [address], clients, 0, RUN, log, gaps_allowed)
        yield browsers
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (chunk(1, 2) + chunk(3), {"lost": 0, "disorder": 0, "gaps": 0, "events": 3}),
        (sse.chunk(sse.gap_frame("x")) + chunk(1), {"gaps": 2, "events": 1}),
        (chunk(1, 2) + chunk(2), {"twice": 2, "events": 2}),
        (chunk(1, 2, 3, 4) + chunk(2), {"disorder": 0, "twice": 2, "events": 4}),
    ],
)
async def test_browsers_report_what_they_saw(
    stream: bytes, expected: dict[str, int], tmp_path: Path
) -> None:
    report = await report_of(stream, tmp_path)
    assert {name: report[name] for name in expected} == expected


async def test_streams_that_end_are_reported_with_their_node(tmp_path: Path) -> None:
    async with browsing(chunk(1), tmp_path, 1, ends=True) as browsers:
        with trio.fail_after(WAIT_S_MAX):
            while not browsers.ends:  # noqa: ASYNC110
                await trio.sleep(0.05)
    (at, node, began), *_ = browsers.ends
    assert node == 0
    assert 0 < began <= at


async def test_event_that_nobody_saw_is_named(tmp_path: Path) -> None:
    async with browsing(chunk(1, 3), tmp_path, 1) as browsers:
        with trio.fail_after(WAIT_S_MAX):
            while browsers.report.get("events", 0) < 2:  # noqa: ASYNC110
                await trio.sleep(0.05)
            assert await browsers.missing([0, 3, 0]) == (1, [key_of(RPC, 2)])
