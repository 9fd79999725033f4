"""Following a stream over real sockets: resume, retry, the end, silence, TLS."""

import ssl
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from noti.client.event_source import read_stream
from noti.client.event_stream import StreamEvent
from noti.client.reconnection import RECONNECTION_S, Reconnect, Reconnection
from noti.errors import LocalError, Unavailable
from tests.certificates.authority import Wanted, authority, issue
from tests.certificates.bad import peer_context
from tests.client.scripted import Script, over_tls, scripted
from tests.http.stage import LIMIT_S, hub, notifications, serving

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
AT_ONCE = b"retry: 1\n\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def stream(body: bytes) -> bytes:
    return HEAD + b"Connection: close\r\n\r\n" + body


class Recorder:
    """A watcher that notes everything."""

    def __init__(self, enough: int = 1_000_000) -> None:
        self.events: list[StreamEvent] = []
        self.opened_at: list[str | None] = []
        self.pauses: list[Reconnect] = []
        self._enough = enough

    def opened(self, url: str, resumed_from: str | None) -> None:
        self.opened_at.append(resumed_from)

    def event(self, event: StreamEvent) -> bool:
        self.events.append(event)
        return len(self.events) < self._enough

    def waiting(self, pause: Reconnect) -> None:
        self.pauses.append(pause)

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events]


async def watch(
    url: str,
    *,
    enough: int = 1_000_000,
    after: str = "",
    tls: ssl.SSLContext | None = None,
    silence_s: float = LIMIT_S,
    headers: Sequence[tuple[str, str]] = (),
) -> Recorder:
    recorder = Recorder(enough)
    await read_stream(
        Reconnection(url, Random(1), after),
        recorder,
        tls=tls or ssl.create_default_context(),
        silence_s_max=silence_s,
        headers=headers,
    )
    return recorder


async def test_a_stream_is_resumed_until_the_server_reports_its_end() -> None:
    first = stream(AT_ONCE + b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: cut")
    second = stream(b"id: 3\ndata: c\n\n")
    async with scripted(first, second, NO_CONTENT) as (script, url):
        recorder = await watch(url)
    assert recorder.data == ["a", "b", "c"]
    resumed = [_header(request, "Last-Event-ID") for request in script.requests]
    assert resumed == [None, "2", "3"]
    assert all(pause.after_s < RECONNECTION_S / 2 for pause in recorder.pauses)


def _header(request: str, wanted: str) -> str | None:
    for line in request.split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() == wanted.lower():
            return value
    return None


@pytest.mark.parametrize(
    "failure",
    [b"", b"nonsense\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"],
    ids=["hang-up", "no HTTP", "broken chunk"],
)
async def test_a_failure_is_reported_and_tried_again(
    failure: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted(stream(AT_ONCE), failure, NO_CONTENT) as (_, url):
        recorder = await watch(url)
    assert len(recorder.pauses) == 2
    assert all(pause.why for pause in recorder.pauses)


async def test_a_silent_connection_is_given_up_and_resumed() -> None:
    silent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _chunk(AT_ONCE + b"id: 1\ndata: a\n\n")
    async with scripted(silent, NO_CONTENT) as (script, url):
        recorder = await watch(url, silence_s=0.05)
    assert recorder.data == ["a"]
    assert "silent" in recorder.pauses[0].why
    assert _header(script.requests[1], "Last-Event-ID") == "1"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_a_rejection_is_reported_with_the_servers_words() -> None:
    body = b"Missing topic.\n"
    rejection = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with scripted(rejection) as (_, url):
        with pytest.raises(Unavailable, match=r"status 400: Missing topic\.$"):
            await watch(url)


async def test_secrets_stay_at_home_when_the_server_redirects_elsewhere() -> None:
    async with scripted(NO_CONTENT) as (other, elsewhere):
        redirect = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n"
        async with scripted(redirect.encode()) as (home, url):
            await watch(url, headers=[("Authorization", "Bearer secret")])
    assert "secret" in home.requests[0]
    assert "secret" not in other.requests[0]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1:8402", "http://", "http://x:y/"])
async def test_a_url_that_cannot_be_followed_is_reported(url: str) -> None:
    with pytest.raises(LocalError, match="cannot be asked for"):
        await watch(url)


async def test_a_node_is_followed_over_its_restart_without_gap_or_duplicate() -> None:
    there = hub(retry_ms_min=1, retry_ms_max=5)
    there.publish(notifications(1, 5))
    recorder = Recorder(enough=20)
    async with trio.open_nursery() as nursery:
        async with serving(there) as (host, port):
            url = f"http://{host}:{port}/.well-known/mercure?topic=*"
            reconnection = Reconnection(url, Random(1), "id-2")
            context = ssl.create_default_context()
            nursery.start_soon(partial(read_stream, reconnection, recorder, tls=context))
            await _until(lambda: len(recorder.events) == 3)
            there.publish(notifications(6, 10))
            await _until(lambda: len(recorder.events) == 8)
        there.publish(notifications(11, 22))
        async with serving(there, port=port):
            await _until(lambda: len(recorder.events) == 20)
    assert [event.last_event_id for event in recorder.events] == [f"id-{n}" for n in range(3, 23)]
    assert recorder.opened_at == ["id-2", "id-10"]


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


async def test_https_wants_a_certificate_that_is_right(tmp_path: Path) -> None:
    ca, other = authority(), authority("other")
    shown = peer_context(issue(Wanted(ips=("127.0.0.1",)), ca), tmp_path, server=True)
    script = Script([stream(b"id: 1\ndata: a\n\n"), NO_CONTENT])
    async with over_tls(script, shown) as url:
        trusting = ssl.create_default_context(cadata=ca.pem.decode())
        assert (await watch(url, tls=trusting, enough=1)).data == ["a"]
        doubting = ssl.create_default_context(cadata=other.pem.decode())
        with pytest.raises(Unavailable, match="a CA that is not in our CA file"):
            await watch(url, tls=doubting)
