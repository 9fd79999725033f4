"""Any interleaving of publishing, coming, going, stalling and resuming keeps what cursors promise.

Real loopback sockets with tiny buffers, without TLS and with it, so that almost every write is
partial; every byte goes through h11 and then through our own parser of event streams. The model is
a list: what was published. A stream says where it begins (its first `id:`); from there on, it must
bring exactly what its topics cover, in order, each once. It ends only when its browser leaves:
however long a burst is, and however far history has moved.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import h11
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from noti.address import Address
from noti.client.event_stream import EventStreamParser
from noti.history.notification import Notification
from noti.http.config import HttpConfig
from noti.streams.hub import Hub
from noti.streams.retained import seq_in
from tests import promises
from tests.http.stage import LIMIT_S, hub, notification, serving
from tests.http.tls_stage import SecuredEnd, shared_site

HISTORY = 12
TOPICS = ("a", "b", "c")
SIZES = (1, 40, 700, 9000)
"""From many events in a chunk to one that fills the buffers of both ends several times."""

SETTINGS = {"send_buffer_bytes": 4096, "chunk_bytes_max": 2000}


UNTOLD = "?"
"""No id of the server's: the parser's last event id before the stream told one."""


@dataclass(frozen=True)
class Publish:
    events: Sequence[tuple[str, int]]
    """Topic and size of each."""


@dataclass(frozen=True)
class Connect:
    topics: frozenset[str]
    cursor: int | None
    """Which event to resume from, counted from the newest back; None: from now on."""
    http_1_0: bool
    """By the ordinary way, not the adopted one."""


@dataclass(frozen=True)
class Resume:
    browser: int


@dataclass(frozen=True)
class Read:
    browser: int
    size: int


@dataclass(frozen=True)
class Leave:
    browser: int
    half: bool
    """Only our side is closed."""


@dataclass(frozen=True)
class Checkpoints:
    turns: int


Step = Publish | Connect | Resume | Read | Leave | Checkpoints

WHO = st.integers(0, 7)
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Publish,
        st.lists(
            st.tuples(st.sampled_from(TOPICS), st.sampled_from(SIZES)), min_size=1, max_size=6
        ),
    ),
    st.builds(
        Publish,
        st.builds(
            lambda topic, size, count: [(topic, size)] * count,
            st.sampled_from(TOPICS),
            st.sampled_from(SIZES),
            st.integers(HISTORY, 5 * HISTORY),
        ),
    ),
    st.builds(
        Connect,
        st.one_of(
            st.just(frozenset("*")), st.frozensets(st.sampled_from(TOPICS), min_size=1, max_size=2)
        ),
        st.one_of(st.none(), st.integers(0, 2 * HISTORY)),
        st.booleans(),
    ),
    st.builds(Resume, WHO),
    st.builds(Read, WHO, st.sampled_from((1, 7, 100, 3000, 100_000))),
    st.builds(Leave, WHO, st.booleans()),
    st.builds(Checkpoints, st.integers(1, 5)),
)


@dataclass
class Course:
    """What was published so far."""

    hub: Hub
    published: list[Notification] = field(default_factory=list)

    def publish(self, events: Sequence[tuple[str, int]]) -> None:
        first = self.newest + 1
        new = [
            notification(seq, topic, f"{seq}:" + "x" * size)
            for seq, (topic, size) in enumerate(events, first)
        ]
        self.published += new
        self.hub.publish(new)
        self.hub.trim(self.oldest)

    @property
    def newest(self) -> int:
        return len(self.published)

    @property
    def oldest(self) -> int:
        return max(1, self.newest - HISTORY + 1)

    def covered(self, topics: frozenset[str], after: int, through: int) -> list[int]:
        """Return the numbers in (after, through] that these topics cover."""
        return [
            one.seq
            for one in self.published[after:through]
            if "*" in topics or one.topics[0] in topics
        ]


def seq_of(event_id: str) -> int:
    if event_id == "beginning":
        return 0
    return seq_in(event_id) or int(event_id.removeprefix("id-"))


class Browser:
    """One subscriber over all its connections, and the judge of what it is sent."""

    def __init__(self, course: Course, address: Address, asked: Connect, *, secured: bool) -> None:
        self._secured = secured
        self.topics = asked.topics
        self.at: int | None = None
        """The event up to which it has everything; None until a stream has told."""
        self.sock: trio.socket.SocketType | SecuredEnd | None = None
        self._course = course
        self._address = address
        self._http_1_0 = asked.http_1_0
        self._last_event_id = ""
        if asked.cursor is not None:
            self._last_event_id = f"id-{max(0, course.newest - asked.cursor)}"

    async def connect(self) -> None:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        plain.setblocking(False)
        connecting = trio.socket.from_stdlib_socket(plain)
        await connecting.connect(self._address)
        self.sock = connecting
        if self._secured:
            self.sock = await SecuredEnd.connected(plain)
        self._http = h11.Connection(h11.CLIENT)
        self._parser = EventStreamParser(UNTOLD)
        self._asked = self._last_event_id
        self._oldest_when_asked = self._course.oldest
        self._leaving = False
        self._begun = False
        self.at = None
        headers = [("host", "localhost"), ("accept", "text/event-stream")]
        if self._asked:
            headers.append(("last-event-id", self._asked))
        query = "&".join(f"topic={topic}" for topic in sorted(self.topics))
        target = f"/.well-known/mercure?{query}&cursor=1"
        request = self._http.send(h11.Request(method="GET", target=target, headers=headers))
        assert request is not None
        self._http.send(h11.EndOfMessage())
        if self._http_1_0:
            request = request.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        await self.sock.send(request)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None

    def half_close(self) -> None:
        if self.sock is not None and not self._leaving:
            self._leaving = True
            with suppress(OSError):  # the server may have closed the stream before
                self.sock.shutdown(socket.SHUT_WR)

    async def read(self, size: int) -> None:
        """Take up to `size` bytes; the socket is gone afterwards when the stream is over."""
        assert self.sock is not None
        try:
            data = await self.sock.recv(size)
        except ConnectionResetError:
            data = b""
        if not data:
            self._over()
            return
        self._http.receive_data(data)
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Response(status_code=status, headers=fields):
                    assert status == 200
                    self._resumed_from = dict(fields).get(b"last-event-id", b"").decode()
                case h11.Data(data=data):
                    self._take(bytes(data))
                case h11.EndOfMessage():
                    self._over()
                    return
                case _:
                    raise AssertionError(event)

    def _over(self) -> None:
        """A stream may end only because we hung up."""
        assert self._leaving
        self.close()

    def _take(self, data: bytes) -> None:
        # Where the stream begins is told by an id of its own, which events behind it must not hide.
        while data and not self._begun:
            self._interpret(data[:1])
            data = data[1:]
        self._interpret(data)

    def _interpret(self, data: bytes) -> None:
        events = self._parser.feed(data)
        for event in events:
            if event.type == "noti-gap":
                self._begin(gap=True)
                continue
            assert self._begun, "a stream tells where it begins before it shows anything"
            seq = seq_of(event.last_event_id)
            assert event.data == self._course.published[seq - 1].data
            self._see(seq)
        if self._parser.last_event_id != UNTOLD:
            if not self._begun:
                self._begin()
            self._last_event_id = self._parser.last_event_id

    def _begin(self, *, gap: bool = False) -> None:
        """Judge where the stream says that it begins."""
        assert not self._begun, "a gap is told before everything else"
        self._begun = True
        if gap:
            assert self._resumed_from == "earliest"
            assert self._asked not in ("", "earliest")
            assert seq_of(self._asked) < self._course.oldest
        else:
            assert self._resumed_from == self._asked
            if self._asked != "earliest":
                self.at = seq_of(self._asked or self._parser.last_event_id)

    def _see(self, seq: int) -> None:
        if self.at is not None:
            assert self._course.covered(self.topics, self.at, seq) == [seq]
        else:
            # Everything that history held when the stream began, which was after it was asked for.
            skipped = self._course.covered(self.topics, self._oldest_when_asked - 1, seq)
            assert skipped[-1] == seq
            assert all(earlier < self._course.oldest for earlier in skipped[:-1])
        self.at = seq


async def walk(
    course: Course, address: Address, steps: Sequence[Step], *, secured: bool
) -> list[Browser]:
    """Take the steps; return all browsers, whatever state they are in."""
    browsers: list[Browser] = []
    for step in steps:
        match step:
            case Publish(events):
                course.publish(events)
            case Connect():
                browsers.append(Browser(course, address, step, secured=secured))
                await browsers[-1].connect()
            case Checkpoints(turns):
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
            case _ if not browsers:
                pass
            case Resume(number):
                browser = browsers[number % len(browsers)]
                browser.close()
                await browser.connect()
            case Read(number, size):
                browser = browsers[number % len(browsers)]
                if browser.sock is not None:
                    with trio.move_on_after(0.002):
                        await browser.read(size)
            case Leave(number, half):
                browser = browsers[number % len(browsers)]
                if half:
                    browser.half_close()
                else:
                    browser.close()
    return browsers


async def finish(course: Course, browsers: Sequence[Browser]) -> None:
    """Everybody who is away comes back, and reads to the end."""
    for browser in browsers:
        if browser.sock is None:
            await browser.connect()
    course.publish([(topic, 1) for topic in TOPICS])
    with trio.fail_after(LIMIT_S):
        for browser in browsers:
            last = course.covered(browser.topics, 0, course.newest)[-1]
            while browser.at is None or browser.at < last:
                if browser.sock is None:
                    await browser.connect()
                await browser.read(65_536)
            browser.close()


@promises.CURSOR_KEPT
@pytest.mark.slow
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
async def test_each_client_gets_exactly_what_its_cursor_promises(
    secured: bool,
    steps: list[Step],
) -> None:
    course = Course(hub(**SETTINGS))
    tls = shared_site().tls if secured else None
    async with serving(course.hub, config=HttpConfig(grace_s=0.1), tls=tls) as address:
        browsers = await walk(course, address, steps, secured=secured)
        try:
            await finish(course, browsers)
        finally:
            for browser in browsers:
                browser.close()
