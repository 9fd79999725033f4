"""The page in a real browser: it shows events, and goes on when its node was restarted."""

import random
from pathlib import Path

import pytest
import trio

from noti.history.notification import Notification
from noti.streams.config import HubConfig
from noti.streams.hub import Hub
from tests import promises
from tests.browser.chromium import chromium
from tests.http.stage import Node, notifications, serving

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.chromium]

STATUS: dict[str, object] = {
    "node": {"name": "node-1", "node_id": "a1"},
    "term": 3,
    "members": [
        {"name": "node-1", "node_id": "a1", "state": "alive", "role": "leader"},
        {"name": "node-2", "node_id": "b2", "state": "alive", "role": "follower"},
    ],
}

SHOWN = "document.querySelectorAll('#events li[data-id]')"
SHOWN_IDS = f"[...{SHOWN}].map((item) => item.dataset.id)"


def text(element: str) -> str:
    return f"document.querySelector('#{element}').innerText"


def connection(state: str) -> str:
    return f"document.querySelector('#connection')?.dataset.state === '{state}'"


def hub(history: list[Notification]) -> Hub:
    there = Hub(HubConfig(retry_ms_min=100, retry_ms_max=200), random.Random(1))
    there.reset(history)
    return there


@promises.RESUMED_WITHOUT_GAP
async def test_the_page_shows_events_and_misses_none_when_its_node_restarts(tmp_path: Path) -> None:
    node = Node(extra=STATUS)
    async with chromium(tmp_path) as page:
        first = hub(notifications(1, 5))
        async with serving(first, node) as (host, port):
            await page.open(f"http://{host}:{port}/")
            await page.until(connection("open"))
            await page.until("document.querySelectorAll('#members li').length === 2")
            assert "you are here" in await page.value(text("members"))
            first.publish(notifications(6, 10))
            await page.until(f"{SHOWN}.length === 5")
            assert await page.value(SHOWN_IDS) == [f"id-{n}" for n in range(10, 5, -1)]

        await page.until(connection("connecting"))
        assert "reconnecting" in await page.value(text("connection"))

        # Events went on elsewhere; the node has them all when it is back.
        second = hub(notifications(1, 20))
        async with serving(second, node, port=port):
            await page.until(f"{SHOWN}.length === 15")
            await page.until(f"{text('notice')}.includes('nothing missed')")
            second.publish(notifications(21, 23))
            await page.until(f"{text('total')} === '18'")
            assert await page.value(SHOWN_IDS) == [f"id-{n}" for n in range(23, 5, -1)]

        # Back without the history that the page needs: it says so.
        third = hub(notifications(500, 502))
        async with serving(third, node, port=port):
            await page.until(f"{text('notice')}.includes('gap')")
            await page.until(f"{text('total')} === '21'")


async def test_the_list_of_events_stays_bounded(tmp_path: Path) -> None:
    there = hub([])
    async with chromium(tmp_path) as page, serving(there, Node(extra=STATUS)) as (host, port):
        await page.open(f"http://{host}:{port}/")
        await page.until(connection("open"))
        for first in range(1, 501, 50):
            there.publish(notifications(first, first + 49))
            await trio.lowlevel.checkpoint()
        await page.until(f"{text('total')} === '500'")
        shown = await page.value(SHOWN_IDS)
        assert (len(shown), shown[0]) == (60, "id-500")
