"""Foreign clients over HTTPS, HTTP/2 and WebSocket: a node dies, and each goes on at another one.

Three nodes with TLS, the one that dies with a web worker. All events are private, so that a client
whose token is not taken sees none of them.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from tests import promises
from tests.authorization.tokens import SECRET, token_v0
from tests.browser.chromium import chromium
from tests.browser.web_site import web_site
from tests.certificates.authority import Wanted, authority, issue
from tests.interop.cluster import SETTLE_S_MAX
from tests.interop.processes import NodeProcess, destroyed_in_the_end, written
from tests.interop.websocket_clients import (
    SOCKETS,
    STREAMS,
    Hubs,
    read_in_go,
    read_in_node,
    read_in_page,
    read_with_curl,
    read_with_websockets,
)
from tests.interop.witness import Witness

pytestmark = [pytest.mark.interop, pytest.mark.slow]

BEFORE, AFTER = 20, 40
"""So many events before the node dies, and until the end."""
NAME = "localhost"


class Site:
    """Three nodes, and who publishes at the last of them."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [NodeProcess(f"node{number}", directory) for number in (1, 2, 3)]
        self._directory = directory
        self._published = 0

    async def start(self) -> None:
        ca = authority()
        (self._directory / "ca.pem").write_bytes(ca.pem)
        (self._directory / "key").write_text(SECRET)
        certificate, key = issue(Wanted(dns=(NAME,)), ca).write(self._directory, "site")
        seeds = [part for node in self.nodes for part in ("--join", written(node.gossip))]
        settings = ["--bootstrap-expect", "3", "--cors-origins", "*"]
        settings += ["--publisher-jwt-key-file", str(self._directory / "key")]
        settings += ["--http-tls-cert", str(certificate), "--http-tls-key", str(key)]
        for workers, node in zip("100", self.nodes, strict=True):
            node.start(*seeds, *settings, "--web-workers", workers)
        for node in self.nodes:
            await node.until_up()

    def hubs(self) -> Hubs:
        addresses = [f"{NAME}:{node.http[1]}" for node in self.nodes]
        token = token_v0(subscribe=["*"])
        return Hubs(addresses, True, token, self._directory / "ca.pem")

    async def publish(self, last: int) -> None:
        """Publish up to this number."""
        hubs = self.hubs()
        headers = {"Authorization": f"Bearer {token_v0(publish=['*'])}"}
        verify = ssl.create_default_context(cafile=str(hubs.ca))
        async with httpx.AsyncClient(verify=verify, headers=headers) as client:
            for number in range(self._published + 1, last + 1):
                data = f'{{"user_id": {number}}}'
                form = {"topic": "/numbers", "data": data, "private": "on", "id": f"id-{number}"}
                while True:  # an election may be on
                    answer = await client.post(hubs.urls("http")[-1], data=form)
                    if answer.status_code == 200:
                        break
                    assert answer.status_code in (503, 504), answer.text
                    await trio.sleep(0.1)
        self._published = last


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    there = Site(directory)
    async with destroyed_in_the_end(there.nodes):
        await there.start()
        yield there


async def until_all_have(last: int, witnesses: list[Witness]) -> None:
    with trio.move_on_after(SETTLE_S_MAX):
        while any(one.last < last for one in witnesses):  # noqa: ASYNC110
            await trio.sleep(0.02)
        return
    late = [(one.name, one.last, one.opened) for one in witnesses if one.last < last]
    raise AssertionError(f"not all have {last}: {late}")


Reader = Callable[[Hubs, Witness], Awaitable[None]]


async def outlive_a_node(there: Site, witnesses: list[Witness]) -> None:
    """Publish, kill the node at which all read, publish; all must have seen all, once."""
    await there.publish(BEFORE)
    await until_all_have(BEFORE, witnesses)
    await there.nodes[0].kill()
    await there.publish(AFTER)
    await until_all_have(AFTER, witnesses)
    problems = [problem for one in witnesses if (problem := one.problem())]
    assert not problems, "\n".join(problems)
    assert [one.numbers for one in witnesses] == [list(range(1, AFTER + 1))] * len(witnesses)
    assert min(one.opened for one in witnesses) >= 2


@promises.MERCURE_CLIENTS_WORK
@promises.RESUMED_WITHOUT_GAP
@pytest.mark.node
@pytest.mark.go
async def test_programs_go_on_at_another_node_when_theirs_dies(tmp_path: Path) -> None:
    readers: dict[str, Reader] = {
        "curl --http2": read_with_curl,
        "websockets": read_with_websockets,
        "ws": partial(read_in_node, "ws"),
        "undici": partial(read_in_node, "undici"),
        "coder/websocket": read_in_go,
    }
    witnesses = [Witness(name) for name in readers]
    async with site(tmp_path) as there, trio.open_nursery() as nursery:
        for read, witness in zip(readers.values(), witnesses, strict=True):
            nursery.start_soon(read, there.hubs(), witness)
        await outlive_a_node(there, witnesses)
        nursery.cancel_scope.cancel()


@promises.RESUMED_WITHOUT_GAP
@pytest.mark.chromium
async def test_ten_streams_of_a_page_over_http_2_go_on_when_their_node_dies(
    tmp_path: Path,
) -> None:
    witnesses = [Witness(f"EventSource {number}") for number in range(STREAMS)]
    witnesses += [Witness(f"WebSocket {number}") for number in range(SOCKETS)]
    async with (
        site(tmp_path) as there,
        web_site() as origin,
        chromium(tmp_path / "chromium", "--ignore-certificate-errors") as page,
        trio.open_nursery() as nursery,
    ):
        await page.open(origin)
        await page.until("document.readyState === 'complete'")
        nursery.start_soon(read_in_page, page, there.hubs(), witnesses)
        await outlive_a_node(there, witnesses)
        nursery.cancel_scope.cancel()
