"""A headless Chromium, driven over the DevTools protocol."""

import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

START_S = 30.0
"""A browser's first start on a busy machine."""

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


class Page:
    """One tab."""

    def __init__(
        self, socket: WebSocketConnection, profile: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._socket = socket
        self._profile = profile
        self._number = 0
        self._session = ""
        self._target = ""

    async def open(self, address: str) -> None:
        target = await self._call("Target.createTarget", url="about:blank", **self._profile)
        self._target = target["targetId"]
        attached = await self._call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        await self._call("Page.enable")
        await self._call("Page.navigate", url=address)

    async def open_tab(self, address: str) -> "Page":
        """Open another tab of the same person."""
        tab = Page(self._socket, self._profile)
        await tab.open(address)
        return tab

    async def open_as_another_person(self, address: str) -> "Page":
        """Open a tab that shares no cookies and no storage with this one."""
        context = await Page(self._socket)._call("Target.createBrowserContext")
        tab = Page(self._socket, {"browserContextId": context["browserContextId"]})
        await tab.open(address)
        return tab

    async def close(self) -> None:
        """Close the tab, as a person does."""
        self._session = ""
        await self._call("Target.closeTarget", targetId=self._target)

    async def crash(self) -> None:
        """Crash the tab: nothing in it runs any more."""
        self._number += 1
        message = {"id": self._number, "method": "Page.crash", "sessionId": self._session}
        await self._socket.send_message(json.dumps(message))

    async def value(self, expression: str) -> Any:
        """Return what a JavaScript expression gives, through JSON; a promise is waited for."""
        answer = await self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str, within_s: float = 15.0) -> None:
        with trio.move_on_after(within_s):
            while not await self.value(expression):  # noqa: ASYNC110
                await trio.sleep(0.02)
            return
        body = await self.value("document.body.innerText")
        raise AssertionError(f"not so within {within_s} s: {expression}\n{body}")

    async def look(self, width: int, height: int, scheme: str, to: Path) -> None:
        """Write a screenshot."""
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        await self._call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        shot = await self._call("Page.captureScreenshot", format="png")
        await trio.Path(to).write_bytes(base64.b64decode(shot["data"]))

    async def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if session := self._session:
            message["sessionId"] = session
        await self._socket.send_message(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(await self._socket.get_message())
            if (answer.get("id"), answer.get("sessionId", "")) == (self._number, session):
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result


@asynccontextmanager
async def chromium(folder: Path, *flags: str) -> AsyncIterator[Page]:
    """Start a browser whose profile is in `folder`; it is gone afterwards."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "this test needs a browser: apt-get install chromium"
    command = [program, *FLAGS, *flags, f"--user-data-dir={folder}", "about:blank"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        )
        port_file = trio.Path(folder) / "DevToolsActivePort"
        with trio.fail_after(START_S):
            while "/" not in (text := await _content(port_file)):  # noqa: ASYNC110
                await trio.sleep(0.05)
        port, path = text.split()
        async with open_websocket_url(
            f"ws://127.0.0.1:{port}{path}", max_message_size=64 * 1024 * 1024
        ) as socket:
            yield Page(socket)
        process.terminate()


async def _content(path: trio.Path) -> str:
    return await path.read_text() if await path.exists() else ""
