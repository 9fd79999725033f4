"""noti.js in a real browser: three tabs, one connection, every event once, whatever dies."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jwt
import pytest
import trio

from noti.http.config import HttpConfig
from noti.streams.config import HubConfig
from noti.streams.hub import Hub
from tests import promises
from tests.browser.chromium import Page, chromium
from tests.browser.web_site import web_site
from tests.http.stage import notifications, serving, until
from tests.interop.processes import running_node, written

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.chromium]

CORS = HttpConfig(cors_origins=("*",))
SEEN = "events.map((event) => event.id)"


def hub() -> Hub:
    return Hub(HubConfig(retry_ms_min=100, retry_ms_max=200), random.Random(1))


def ids(first: int, last: int) -> list[str]:
    return [f"id-{number}" for number in range(first, last + 1)]


async def start(tab: Page, nodes: Sequence[str], options: str = "") -> None:
    """Let a tab follow `nodes`; what it is told is in `events`, `gaps` and `states`."""
    await tab.until("document.readyState === 'complete'")
    await tab.value(
        "(async () => {"
        "Object.assign(window, {events: [], gaps: [], states: []});"
        f"const {{ Noti }} = await import('{nodes[-1]}/noti.js');"
        f"window.noti = new Noti({list(nodes)}, {{"
        "onevent: (event) => events.push(event),"
        "ongap: (gap) => gaps.push(gap),"
        "onstate: (state) => states.push(state),"
        f"topics: ['*'], {options}}}); }})()"
    )
    await tab.until("states.at(-1)?.state === 'open'")


async def until_seen(tabs: Sequence[Page], expected: list[str]) -> None:
    for tab in tabs:
        await tab.until(f"events.length >= {len(expected)}")
        assert await tab.value(SEEN) == expected


@asynccontextmanager
async def three_tabs(
    folder: Path, nodes: Sequence[str], options: str = ""
) -> AsyncIterator[list[Page]]:
    async with chromium(folder) as first, web_site() as origin:
        await first.open(origin)
        tabs = [first, await first.open_tab(origin), await first.open_tab(origin)]
        for tab in tabs:
            await start(tab, nodes, options)
        yield tabs


@promises.APPLICATION_GOES_ON
@promises.RESUMED_WITHOUT_GAP
async def test_three_tabs_have_one_connection_and_lose_nothing_with_the_tab_that_holds_it(
    tmp_path: Path,
) -> None:
    there = hub()
    async with (
        serving(there, config=CORS) as (host, port),
        three_tabs(tmp_path, [f"http://{host}:{port}"]) as (first, *others),
    ):
        await until(lambda: there.clients == 1)
        there.publish(notifications(1, 5))
        await until_seen([first, *others], ids(1, 5))
        await first.close()
        there.publish(notifications(6, 10))
        await until_seen(others, ids(1, 10))
        await until(lambda: there.clients == 1)
        await others[0].close()
        there.publish(notifications(11, 12))
        await until_seen(others[1:], ids(1, 12))
        await others[1].value("noti.close()")
        await until(lambda: there.clients == 0)


async def run_node(
    there: Hub, port: int = 0, *, task_status: trio.TaskStatus[tuple[str, trio.CancelScope]]
) -> None:
    """Serve until the scope is cancelled that this is started with, beside the node's address."""
    with trio.CancelScope() as scope:
        async with serving(there, config=CORS, port=port) as (host, bound):
            task_status.started((f"http://{host}:{bound}", scope))
            await trio.sleep_forever()


@promises.RESUMED_WITHOUT_GAP
async def test_a_tab_that_crashes_leaves_the_connection_to_another_one(tmp_path: Path) -> None:
    there = hub()
    async with (
        serving(there, config=CORS) as (host, port),
        three_tabs(tmp_path, [f"http://{host}:{port}"]) as (first, *others),
    ):
        there.publish(notifications(1, 5))
        await until_seen([first, *others], ids(1, 5))
        await first.crash()
        there.publish(notifications(6, 10))
        await until_seen(others, ids(1, 10))
        assert there.clients == 1


@promises.APPLICATION_GOES_ON
@promises.RESUMED_WITHOUT_GAP
@pytest.mark.parametrize("options", ["", "websocket: true"])
async def test_a_dead_node_is_left_for_the_next_one_without_a_gap(
    tmp_path: Path, options: str
) -> None:
    first, second = hub(), hub()
    async with trio.open_nursery() as nursery:
        dying, life = await nursery.start(run_node, first)
        other, _ = await nursery.start(run_node, second)
        async with three_tabs(tmp_path, [dying, other], options) as tabs:
            assert (first.clients, second.clients) == (1, 0)
            for one in (first, second):
                one.publish(notifications(1, 5))
            await until_seen(tabs, ids(1, 5))
            life.cancel()
            second.publish(notifications(6, 10))
            await until_seen(tabs, ids(1, 10))
            assert second.clients == 1
            for tab in tabs:
                assert await tab.value("gaps.length") == 0
                assert await tab.value("states.at(-1).node") == other
        nursery.cancel_scope.cancel()


async def test_a_node_that_accepts_and_says_nothing_is_left_within_seconds(tmp_path: Path) -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    there = hub()
    async with (
        trio.open_nursery() as nursery,
        serving(there, config=CORS) as (host, port),
        web_site() as origin,
        chromium(tmp_path) as tab,
    ):
        hung = await nursery.start(trio.serve_tcp, hang, 0)
        port_of_hung = hung[0].socket.getsockname()[1]
        await tab.open(origin)
        await start(tab, [f"http://127.0.0.1:{port_of_hung}", f"http://{host}:{port}"])
        reasons = await tab.value("states.map((state) => state.reason)")
        assert reasons[0] == "the node does not answer"
        nursery.cancel_scope.cancel()


async def test_a_tab_whose_token_cannot_be_had_yet_waits_for_it(tmp_path: Path) -> None:
    there = hub()
    async with (
        serving(there, config=CORS) as (host, port),
        web_site() as origin,
        chromium(tmp_path) as tab,
    ):
        await tab.open(origin)
        await tab.until("document.readyState === 'complete'")
        await tab.value(
            "window.failed = 0; window.getToken = async () => {"
            "if (failed) return ''; failed += 1; throw new Error('not logged in'); }; 0"
        )
        await start(tab, [f"http://{host}:{port}"], "getToken")
        assert await tab.value("states[0].reason") == "no token: not logged in"
        assert there.clients == 1


async def test_history_that_is_gone_is_told_to_every_tab_as_a_gap(tmp_path: Path) -> None:
    there, later = hub(), hub()
    later.reset(notifications(100, 101))
    async with trio.open_nursery() as nursery:
        node, life = await nursery.start(run_node, there)
        async with three_tabs(tmp_path, [node]) as tabs:
            there.publish(notifications(1, 5))
            await until_seen(tabs, ids(1, 5))
            life.cancel()
            await until(lambda: not there.running)
            await nursery.start(run_node, later, int(node.rpartition(":")[2]))
            await until_seen(tabs, [*ids(1, 5), *ids(100, 101)])
            for tab in tabs:
                assert await tab.value("gaps.length") == 1
        nursery.cancel_scope.cancel()


async def test_a_later_tab_gets_its_part_of_history_and_then_shares_the_connection(
    tmp_path: Path,
) -> None:
    there = hub()
    there.publish(notifications(1, 5))
    async with (
        serving(there, config=CORS) as (host, port),
        three_tabs(tmp_path, [f"http://{host}:{port}"], "last: 3") as tabs,
    ):
        await until_seen(tabs, ids(3, 5))
        await until(lambda: there.clients == 1)
        there.publish(notifications(6, 7))
        await until_seen(tabs, ids(3, 7))


async def test_events_come_with_their_type_and_all_their_lines(tmp_path: Path) -> None:
    there = hub()
    async with (
        serving(there) as (host, port),
        chromium(tmp_path) as tab,
    ):
        await tab.open(f"http://{host}:{port}/liveness")
        await start(tab, [f"http://{host}:{port}"], "share: false")
        [one] = notifications(1, 1)
        there.publish([one._replace(type="news", data="one: 1\n\ntwo ✓")])
        await tab.until("events.length === 1")
        event = {"id": "id-1", "type": "news", "data": "one: 1\n\ntwo ✓"}
        assert await tab.value("events[0]") == event


SIGN = """async (secret, claims) => {
  const bytes = (text) => new TextEncoder().encode(text);
  const encoded = (array) => btoa(String.fromCharCode(...array))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const part = (value) => encoded(bytes(JSON.stringify(value)));
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes(secret), algorithm, false, ["sign"]);
  const signed = `${part({ alg: "HS256" })}.${part(claims)}`;
  const signature = await crypto.subtle.sign("HMAC", key, bytes(signed));
  return `${signed}.${encoded(new Uint8Array(signature))}`;
}"""


@promises.APPLICATION_GOES_ON
@promises.RESUMED_WITHOUT_GAP
@pytest.mark.parametrize("options", ["getToken", "getToken, websocket: true"])
async def test_a_token_is_renewed_before_it_expires_without_losing_an_event(
    tmp_path: Path, options: str
) -> None:
    secret = "a secret of this test that is long enough"
    (tmp_path / "secret").write_text(secret)
    settings = ("--publisher-jwt-key-file", str(tmp_path / "secret"), "--cors-origins", "*")
    authorization = jwt.encode({"mercure": {"publish": ["*"]}}, secret, "HS256")
    get_token = (
        "window.asked = 0; window.getToken = async () => { asked += 1;"
        "const now = Math.floor(Date.now() / 1000);"
        "const claims = {mercure: {subscribe: ['*']}, iat: now, exp: now + 3, jti: `${asked}`};"
        f"return ({SIGN})('{secret}', claims); }}; 0"
    )
    async with (
        running_node(tmp_path, *settings) as node,
        web_site() as origin,
        chromium(tmp_path / "chromium") as first,
        httpx.AsyncClient(base_url=f"http://{written(node.http)}") as http,
    ):
        tabs = [first]
        await first.open(origin)
        tabs.append(await first.open_tab(origin))
        for tab in tabs:
            await tab.until("document.readyState === 'complete'")
            await tab.value(get_token)
            await start(tab, [str(http.base_url)], options)
        sent = 0
        while await first.value("asked") < 4:
            sent += 1
            answer = await http.post(
                "/.well-known/mercure",
                headers={"Authorization": f"Bearer {authorization}"},
                data={"topic": "mine", "private": "on", "id": f"id-{sent}"},
            )
            answer.raise_for_status()
            await trio.sleep(0.02)
        await until_seen(tabs, ids(1, sent))
        for tab in tabs:
            assert await tab.value("gaps.length") == 0
            states = await tab.value("states.map(({ state }) => state)")
            assert "rejected" not in states
        assert await tabs[1].value("asked") == 1, "who has no connection renews nothing"
