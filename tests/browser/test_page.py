"""The page in a real browser: it shows events, and goes on when its node was restarted."""

import random
from pathlib import Path

import jwt
import pytest
import trio

from noti.history.notification import Notification
from noti.streams.config import HubConfig
from noti.streams.hub import Hub
from tests import promises
from tests.browser.chromium import chromium
from tests.http.stage import Node, notifications, serving, serving_operators, until
from tests.interop.processes import running_node, written

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.chromium]

SHOWN = "document.querySelectorAll('#events li[data-id]')"
SHOWN_IDS = f"[...{SHOWN}].map((item) => item.dataset.id)"


def text(element: str) -> str:
    return f"document.querySelector('#{element}').innerText"


def connection(state: str) -> str:
    return f"document.querySelector('#connection')?.dataset.state === '{state}'"


def fill(field: str, content: str) -> str:
    return f"document.querySelector('#{field}').value = '{content}'; "


def press(button: str) -> str:
    return f"document.querySelector('{button}').click(); "


def hub(history: list[Notification]) -> Hub:
    there = Hub(HubConfig(retry_ms_min=100, retry_ms_max=200), random.Random(1))
    there.reset(history)
    return there


@promises.RESUMED_WITHOUT_GAP
async def test_the_page_shows_events_and_misses_none_when_its_node_restarts(tmp_path: Path) -> None:
    async with chromium(tmp_path) as page:
        first = hub(notifications(1, 5))
        async with serving(first) as (host, port):
            await page.open(f"http://{host}:{port}/")
            await page.until(connection("open"))
            assert await page.value(text("node")) == f"{host}:{port}"
            first.publish(notifications(6, 10))
            await page.until(f"{SHOWN}.length === 10")
            assert await page.value(SHOWN_IDS) == [f"id-{n}" for n in range(10, 0, -1)]

        await page.until(connection("connecting"))
        assert "reconnecting" in await page.value(text("connection"))

        # Events went on elsewhere; the node has them all when it is back.
        second = hub(notifications(1, 20))
        async with serving(second, port=port):
            await page.until(f"{SHOWN}.length === 20")
            await page.until(f"{text('notice')}.includes('nothing missed')")
            second.publish(notifications(21, 23))
            await page.until(f"{text('total')} === '23'")
            assert await page.value(SHOWN_IDS) == [f"id-{n}" for n in range(23, 0, -1)]

        # Back without the history that the page needs: it says so.
        third = hub(notifications(500, 502))
        async with serving(third, port=port):
            await page.until(f"{text('notice')}.includes('gap')")
            await page.until(f"{text('total')} === '26'")


async def test_the_list_of_events_stays_bounded(tmp_path: Path) -> None:
    there = hub([])
    async with chromium(tmp_path) as page, serving(there) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(connection("open"))
        for first in range(1, 501, 50):
            there.publish(notifications(first, first + 49))
            await trio.lowlevel.checkpoint()
        await page.until(f"{text('total')} === '500'")
        shown = await page.value(SHOWN_IDS)
        assert (len(shown), shown[0]) == (200, "id-500")


async def test_events_that_come_fast_are_drawn_together_and_without_animation(
    tmp_path: Path,
) -> None:
    there = hub([])
    async with chromium(tmp_path) as page, serving(there) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(connection("open"))
        there.publish(notifications(1, 1))
        await page.until("document.querySelectorAll('#events li.fresh').length === 1")
        await page.value(
            "window.drawings = []; new MutationObserver(() => drawings.push(performance.now()))"
            ".observe(document.querySelector('#events'), {childList: true}); 0"
        )
        began = trio.current_time()
        published = 1
        while published < 1001:
            due = min(1001, 1 + int(500 * (trio.current_time() - began)))
            there.publish(notifications(published + 1, due))
            published = due
            await trio.sleep(0.005)
        await page.until(f"{SHOWN}[0].dataset.id === 'id-1001'")
        assert await page.value("document.querySelectorAll('#events li.fresh').length") == 0
        pauses_ms = await page.value("drawings.slice(1).map((at, n) => at - drawings[n])")
        # The first ten are drawn as they come, and so are ten after a second in which a machine
        # that is busy let none come; without a limit there would be a hundred drawings.
        assert len(pauses_ms) > 2
        assert sum(pause < 190 for pause in pauses_ms) <= 30


async def test_a_page_that_is_opened_shows_the_last_20_events(tmp_path: Path) -> None:
    there = hub(notifications(1, 100))
    async with chromium(tmp_path) as page, serving(there) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(f"{SHOWN}.length === 20")
        assert await page.value(SHOWN_IDS) == [f"id-{n}" for n in range(100, 80, -1)]


async def test_a_person_chooses_topics_and_may_stop_the_list_to_read(tmp_path: Path) -> None:
    there = hub([*notifications(1, 3, topic="news"), *notifications(4, 5, topic="jobs")])
    async with chromium(tmp_path) as page, serving(there) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(f"{SHOWN}.length === 5")
        await page.value(fill("topics", "news weather") + press("#subscription button"))
        await page.until(f"{SHOWN}.length === 3")
        assert await page.value(SHOWN_IDS) == ["id-3", "id-2", "id-1"]
        assert "topic=news&topic=weather" in await page.value(text("curl"))
        await page.value(press("#pause"))
        there.publish(notifications(6, 7, topic="weather"))
        await page.until(f"{text('total')} === '10'")
        assert len(await page.value(SHOWN_IDS)) == 3
        await page.value(press("#pause"))
        await page.until(f"{SHOWN}.length === 5")


async def test_a_person_chooses_a_websocket_instead_of_an_event_stream(tmp_path: Path) -> None:
    there = hub(notifications(1, 3))
    async with chromium(tmp_path) as page, serving(there) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(f"{SHOWN}.length === 3")
        await page.value(fill("transport", "websocket") + press("#subscription button"))
        await until(
            lambda: any(
                stream.group.audience.framing.is_websocket for stream in there._sending.all()
            )
        )
        there.publish(notifications(4, 5))
        await page.until(f"{SHOWN}.length === 5")
        assert await page.value(SHOWN_IDS) == [f"id-{number}" for number in (5, 4, 3, 2, 1)]


async def test_a_token_stays_in_the_tab_and_out_of_what_is_shown(tmp_path: Path) -> None:
    there = hub([])
    async with chromium(tmp_path) as page, serving(there) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(connection("open"))
        await page.value(fill("token", "eyJ0.e30.x") + press("#subscription button"))
        assert await page.value("sessionStorage.getItem('noti-token')") == "eyJ0.e30.x"
        assert await page.value("[localStorage.length, document.cookie]") == [0, ""]
        assert "eyJ0" not in await page.value("document.body.innerText + location.href")


def member(name: str, state: str, role: str, ops: str = "") -> dict[str, str]:
    return {"name": name, "node_id": f"id-{name}", "state": state, "role": role, "ops": ops}


OPERATED = Node(
    extra={
        "node": {"name": "node-1", "node_id": "id-node-1"},
        "term": 3,
        "clients": 17,
        "troubles": [{"trouble": "source", "text": "events are not read: refused"}],
        "members": [
            member("node-1", "alive", "leader"),
            member("node-2", "alive", "follower", "127.0.0.1:8503"),
            member("node-3", "dead", "follower", "127.0.0.1:8603"),
            member("once", "dead", "none"),
            member("twice", "left", "none"),
        ],
    }
)


async def test_operators_see_the_cluster_without_those_who_died_and_have_no_seat(
    tmp_path: Path,
) -> None:
    async with chromium(tmp_path) as page, serving_operators(OPERATED) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until("document.querySelectorAll('#members li').length === 3")
        assert await page.value(text("clients")) == "17"
        names = "[...document.querySelectorAll('#members .name')].map((one) => one.innerText)"
        assert await page.value(names) == ["node-1 you are here", "node-2", "node-3"]
        assert "events are not read: refused" in await page.value(text("troubles"))


async def test_the_page_of_a_dead_node_links_to_those_of_others_that_live(tmp_path: Path) -> None:
    async with chromium(tmp_path) as page:
        async with serving_operators(OPERATED) as (host, port):
            await page.open(f"http://{host}:{port}/")
            await page.until("document.querySelectorAll('#members li').length === 3")
        await page.until(f"{text('elsewhere')}.includes('Others that live: node-2')")
        links = "[...document.querySelectorAll('#elsewhere a')].map((link) => link.href)"
        assert await page.value(links) == ["http://127.0.0.1:8503/"]
        async with serving_operators(OPERATED, port):
            await page.until("document.querySelector('#elsewhere').hidden")


async def test_the_page_says_how_presence_is_turned_on(tmp_path: Path) -> None:
    async with chromium(tmp_path) as page, serving(hub([])) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(connection("open"))
        await page.value("document.querySelector('#subscribers').open = true")
        await page.until(f"{text('subscribers-empty')}.includes('--subscriptions')")


async def test_a_person_with_a_token_publishes_and_sees_private_events_and_who_is_subscribed(
    tmp_path: Path,
) -> None:
    secret = "a secret of this test that is long enough"
    (tmp_path / "secret").write_text(secret)
    rights = {"publish": ["*"], "subscribe": ["*"]}
    token = jwt.encode({"mercure": rights}, secret, "HS256")
    key = str(tmp_path / "secret")
    settings = ("--publisher-jwt-key-file", key, "--subscriptions", "true")
    publish = press("#publish button")
    async with (
        running_node(tmp_path, *settings) as node,
        chromium(tmp_path / "chromium") as page,
    ):
        await page.open(f"http://{written(node.http)}/")
        await page.until(connection("open"))
        await page.value(publish)
        await page.until(f"{text('published')}.startsWith('401')")
        assert "Paste a token" in await page.value(text("published"))
        await page.value("document.querySelector('#subscribers').open = true; 0")
        await page.until(f"{text('subscribers-empty')}.startsWith('This needs a token')")
        await page.value(fill("token", token[:-4]) + press("#subscription button"))
        await page.until(connection("rejected"))
        assert "401" in await page.value(text("notice"))
        await page.value(fill("token", token) + press("#subscription button"))
        await page.until(connection("open"))
        await page.value(
            "Object.assign(document.querySelector('#publish').elements.type, {value: 'alert'});"
            "document.querySelector('#publish').elements.private.checked = true;"
        )
        await page.value(publish)
        await page.until(f"{text('published')}.startsWith('committed as urn:uuid:')")
        # Who is subscribed is told by private events, too.
        rows = f"[...{SHOWN}].map((item) => item.innerText).filter((row) => row.includes('alert'))"
        await page.until(f"{rows}.length === 1")
        [shown] = await page.value(rows)
        for part in ("hello", "*", "urn:uuid:"):
            assert part in shown
        await page.until(f"{text('subscribers-count')} === '1'")
        assert (
            await page.value("document.querySelector('#subscribers-list .name').innerText") == "*"
        )
