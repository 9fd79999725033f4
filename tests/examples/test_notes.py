"""The application of `notes.py` with a real node, and two people in a real browser."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import jwt
import pytest
import trio

from tests import promises
from tests.browser.chromium import Page, chromium
from tests.interop.processes import HOST, running_node, written
from tests.ports import free_port

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.chromium]

NOTES = "[...document.querySelectorAll('#notes li')].map((note) => note.innerText)"
START_S = 20.0
SECRET = "a secret of this test that is long enough"


@asynccontextmanager
async def application(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Run a node and the application; yield where they are."""
    key = folder / "secret"
    key.write_text(f"{SECRET}\n")
    port = free_port()
    origin = f"http://{HOST}:{port}"
    settings = ("--publisher-jwt-key-file", str(key), "--cors-origins", origin)
    async with running_node(folder, *settings) as node, trio.open_nursery() as nursery:
        noti_url = f"http://{written(node.http)}"
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-m", "tests.examples.notes", str(port)],
                env={**os.environ, "NOTI_URL": noti_url, "JWT_KEY_FILE": str(key)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        )
        try:
            with trio.fail_after(START_S):
                while not await _accepts(port):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            yield origin, noti_url
        finally:
            process.terminate()


async def _accepts(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream(HOST, port)).aclose()
    except OSError:
        return False
    return True


async def publish_for_all(noti_url: str, text: str) -> None:
    token = jwt.encode({"mercure": {"publish": ["*"]}}, SECRET, "HS256")
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{noti_url}/.well-known/mercure",
            data={"topic": "news", "data": text},
            headers={"Authorization": f"Bearer {token}"},
        )
    answer.raise_for_status()


async def log_in(tab: Page, user: str, password: str) -> None:
    await tab.until("document.querySelector('[name=user]') !== null")
    await tab.value(
        f"document.querySelector('[name=user]').value = '{user}';"
        f"document.querySelector('[name=password]').value = '{password}';"
        "document.querySelector('button').click()"
    )
    await tab.until("document.body?.dataset.state === 'open'")


async def send(tab: Page, to: str, text: str) -> None:
    await tab.value(
        f"document.querySelector('[name=to]').value = '{to}';"
        f"document.querySelector('[name=text]').value = '{text}';"
        "document.querySelector('#send button').click()"
    )


@promises.PRIVATE_ONLY_FOR_ALLOWED
async def test_each_of_two_users_sees_the_notes_for_him_and_no_others(tmp_path: Path) -> None:
    async with (
        application(tmp_path) as (origin, noti_url),
        chromium(tmp_path / "chromium") as alice,
    ):
        await alice.open(origin)
        await log_in(alice, "alice", "looking-glass")
        bob = await alice.open_as_another_person(origin)
        await log_in(bob, "bob", "builder")
        # Bob also asks for what is not his: all topics, and Alice's by name.
        await bob.value(
            f"import('{noti_url}/noti.js').then(({{ Noti }}) => {{"
            f"window.stolen = []; window.spy = new Noti('{noti_url}', {{"
            "topics: ['*', 'https://notes.example/users/alice'], cookies: true, share: 'spy',"
            "onevent: ({ data }) => stolen.push(data),"
            "onstate: ({ state }) => { document.body.dataset.spy = state; }}); })"
        )
        await bob.until("document.body.dataset.spy === 'open'")
        await send(bob, "alice", "tea at five")
        await alice.until(f"{NOTES}.length === 1")
        await send(alice, "bob", "can you mend it")
        await send(alice, "alice", "buy a hat")
        await alice.until(f"{NOTES}.length === 2")
        await send(bob, "bob", "that is all")
        await bob.until(f"{NOTES}.length === 2")
        await bob.until("stolen.length === 2")
        assert await alice.value(NOTES) == ["bob: tea at five", "alice: buy a hat"]
        his = ["alice: can you mend it", "bob: that is all"]
        assert await bob.value(NOTES) == his
        assert await bob.value("stolen") == his


async def test_who_is_not_logged_in_is_shown_no_note(tmp_path: Path) -> None:
    async with (
        application(tmp_path) as (origin, noti_url),
        chromium(tmp_path / "chromium") as alice,
    ):
        await alice.open(origin)
        await log_in(alice, "alice", "looking-glass")
        stranger = await alice.open_as_another_person(origin)
        await stranger.until("document.querySelector('[name=user]') !== null")
        await stranger.value(
            f"import('{noti_url}/noti.js').then(({{ Noti }}) => {{"
            f"window.stolen = []; new Noti('{noti_url}', {{ topics: ['*'], share: false,"
            "onevent: ({ data }) => stolen.push(data),"
            "onstate: ({ state }) => { document.body.dataset.spy = state; }}); })"
        )
        await stranger.until("!!document.body.dataset.spy")
        await send(alice, "alice", "a secret")
        await alice.until(f"{NOTES}.length === 1")
        # What a node sends is in order: before this, the private one would have come.
        await publish_for_all(noti_url, "good morning")
        await stranger.until("stolen.length > 0")
        assert await stranger.value("stolen") == ["good morning"]
