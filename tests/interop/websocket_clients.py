"""Foreign clients that read streams of a cluster and go on at another node, after their last id.

Chromium (`EventSource` over HTTP/2, `WebSocket`), curl over HTTP/2, the npm packages `ws` and
`undici`, Go's coder/websocket, `websockets` of PyPI. Each runs until cancelled.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import trio

from noti.client.event_stream import EventStreamParser
from tests.browser.chromium import Page
from tests.interop.nats.go_programs import built
from tests.interop.node_clients import node_program
from tests.interop.witness import Witness

GO_SOURCE = Path(__file__).parent / "websocket_go"
BACK_S = 0.2


@dataclass(frozen=True)
class Hubs:
    """Where clients read: the same stream at each node, in the order in which they try."""

    addresses: Sequence[str]
    """Each a host and a port."""
    secured: bool
    token: str
    ca: Path

    def urls(self, scheme: str, **query: str) -> list[str]:
        """Return the URLs for `http` or `ws`."""
        secured = "s" if self.secured else ""
        asked = urlencode({"topic": "/numbers", **query})
        return [f"{scheme}{secured}://{one}/.well-known/mercure?{asked}" for one in self.addresses]


async def read_with_curl(hubs: Hubs, witness: Witness) -> None:
    """One curl after the other; curl itself does not resume."""
    last, head = "earliest", hubs.ca.parent / "curl.head"
    for url in itertools.cycle(hubs.urls("http")):
        command = ["curl", "--http2", "--no-buffer", "--silent", "--fail", "--cacert", str(hubs.ca)]
        command += ["--dump-header", str(head)]
        command += ["--header", f"Authorization: Bearer {hubs.token}"]
        parser, opened = EventStreamParser(last), False
        async with _output([*command, "--header", f"Last-Event-ID: {last}", url]) as output:
            async for data in output:
                if not opened:
                    assert head.read_text().startswith("HTTP/2 200"), head.read_text()
                    witness.see({"open": True})
                    opened = True
                for event in parser.feed(bytes(data)):
                    kind = "gap" if event.type == "noti-gap" else "data"
                    witness.see({kind: event.data})
                last = parser.last_event_id
        await trio.sleep(BACK_S)


async def read_with_websockets(hubs: Hubs, witness: Witness) -> None:
    """The library `websockets`, subprotocol `sse`, token in a header."""
    command = [sys.executable, "-m", "tests.interop.websockets_client", str(hubs.ca), hubs.token]
    await _see([*command, *hubs.urls("ws")], witness)


async def read_in_node(package: str, hubs: Hubs, witness: Witness) -> None:
    """`ws`, or the WebSocket of `undici`, which is that of Node itself."""
    script = await trio.to_thread.run_sync(node_program, "websocket.mjs")
    environment = {"NODE_EXTRA_CA_CERTS": str(hubs.ca)}
    command = ["node", str(script), package, hubs.token, *hubs.urls("ws")]
    await _see(command, witness, environment)


async def read_in_go(hubs: Hubs, witness: Witness) -> None:
    """coder/websocket."""
    program = await trio.to_thread.run_sync(built, GO_SOURCE)
    command = [str(program), hubs.token, *hubs.urls("ws")]
    await _see(command, witness, {"SSL_CERT_FILE": str(hubs.ca)})


STREAMS = 10
"""`EventSource`s of one page; over HTTP/1.1 there are six at most."""
SOCKETS = 2
PAGE = """(() => {
  window.said = [];
  const start = (place, open, urls) => {
    let last = "earliest";
    const tell = (what) => said.push([place, what]);
    const note = (id) => { last = id; };
    const connect = (turn) => {
      const url = `${urls[turn %% urls.length]}&lastEventID=${encodeURIComponent(last)}`;
      open(url, tell, note, () => setTimeout(connect, 200, turn + 1));
    };
    connect(0);
  };
  const stream = (url, tell, note, again) => {
    const source = new EventSource(url);
    source.onopen = () => tell({ open: true });
    source.onmessage = ({ lastEventId, data }) => { note(lastEventId); tell({ data }); };
    source.addEventListener("noti-gap", ({ data }) => tell({ gap: data }));
    source.onerror = () => { source.close(); again(); };
  };
  const socket = (url, tell, note, again) => {
    const one = new WebSocket(url, ["noti", "authorization.bearer.%(token)s"]);
    one.onopen = () => tell({ open: true });
    one.onmessage = (message) => {
      const { id, type, data, cursor } = JSON.parse(message.data);
      if (id || cursor) note(id ?? cursor);
      if (type === "noti-gap") tell({ gap: data });
      else if (id) tell({ data });
    };
    one.onclose = ({ code }) => { tell({ close: code }); again(); };
  };
  for (let place = 0; place < %(streams)d; place += 1) start(place, stream, %(http)s);
  for (let place = 0; place < %(sockets)d; place += 1) {
    start(%(streams)d + place, socket, %(ws)s);
  }
})()"""


async def read_in_page(page: Page, hubs: Hubs, witnesses: Sequence[Witness]) -> None:
    """Let a page read: the first `STREAMS` witnesses see `EventSource`s, the others sockets."""
    told = {"token": hubs.token, "streams": STREAMS, "sockets": len(witnesses) - STREAMS}
    urls = {
        "http": json.dumps(hubs.urls("http", authorization=hubs.token)),
        "ws": json.dumps(hubs.urls("ws")),
    }
    await page.value(PAGE % (told | urls))
    while True:
        for place, said in await page.value("said.splice(0)"):
            witnesses[place].see(said)
        await trio.sleep(0.05)


async def _see(
    command: Sequence[str], witness: Witness, environment: dict[str, str] | None = None
) -> None:
    """Run a program that goes on by itself, until cancelled."""
    pending = b""
    async with _output(command, environment) as output:
        async for data in output:
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                witness.see(json.loads(line))
    raise AssertionError(f"{witness.name} gave up: {witness.problem()}")


@asynccontextmanager
async def _output(
    command: Sequence[str], environment: dict[str, str] | None = None
) -> AsyncIterator[trio.abc.ReceiveStream]:
    process = await trio.lowlevel.open_process(
        list(command), stdout=subprocess.PIPE, env={**os.environ, **(environment or {})}
    )
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
