"""Browsers in memory: the `Clients` of the simulator.

There are no sockets and no HTTP; the feed is the real one.
"""

import math
import random
from collections.abc import Callable, Sequence

import trio

from noti.address import Address
from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Action, Grant
from noti.authorization.presented import Presented
from noti.authorization.rejection import TokenRejected
from noti.authorization.revoking import Revoking
from noti.authorization.signing import TokenDraft, signed_token
from noti.config import Config
from noti.descriptors import Shares
from noti.history.notification import Notification
from noti.history.selectors import ALL_TOPICS
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from noti.http.clients import CommandLog
from noti.http.node_view import NodeView
from noti.presence.presence import Presence
from noti.publishing.ports import Publishing
from noti.streams.feed import Audience, Feed, FellBehind, View
from noti.streams.open_streams import Reader, StreamObserver
from noti.streams.retained import EDGE, place_of
from noti.streams.sse import EARLIEST
from noti.tracing.lookup import ProcessReport
from noti.tracing.trail import EventTrail
from tests.simulation.checks import Checks
from tests.simulation.clocks import MachineClock
from tests.simulation.sending import Sending

EVERYTHING = Audience(View.MERCURE, frozenset({ALL_TOPICS}), frozenset({ALL_TOPICS}))
SECRET = "the simulation's secret, 32 bytes"
HUB = "http://hub/.well-known/mercure"
UNIX_AT_START = 1_800_000_000.0
BACKLOG_BYTES = 20_000
"""Some twenty events: slow browsers use that up now and then."""


def unix_time() -> float:
    """Return the wall time of the simulation, seconds since 1970."""
    return UNIX_AT_START + trio.current_time()


class MemoryClients:
    """One node's streams."""

    def __init__(
        self,
        address: Address,
        *,
        showed: Callable[[Sequence[Notification]], None] = lambda notifications: None,
        clock: MachineClock | None = None,
        sending: Sending | None = None,
    ) -> None:
        """`showed` hears all that this node shows; a frozen `clock` stops all streams. `sending` is
        how fast the hub is, as far as it says so."""
        self.feed = Feed()
        self.history: list[Notification] = []
        self.trail = EventTrail(lambda: 0)
        self.serving = False
        self._address = address
        self._showed = showed
        self.clock = clock or MachineClock()
        self._count = 0
        self.abandoned = False
        self.lingers_s = 0.0
        """How long it takes to end; a real hub takes the longer the more browsers it has."""
        self._places: dict[Browser, int] = {}
        """How far the readers of open streams are."""
        self._evicted: set[Browser] = set()
        """Those that were let go."""
        self.sending = sending or Sending()
        self._presence: Presence | None = None
        self._observer: StreamObserver | None = None
        self._streams_begun = 0
        self.subscribers: dict[int, str] = {}
        """Ids of those whose streams are open and told of, by stream."""
        self._news = trio.Event()
        self._closed = trio.Event()

    @property
    def hub(self) -> "MemoryClients":
        return self

    @property
    def clients(self) -> int:
        return self._count + self.sending.readers

    @property
    def pressure(self) -> float:
        return self.sending.pressure

    def publish(self, notifications: Sequence[Notification]) -> None:
        self.sending.published(sum(len(notification.data) for notification in notifications))
        self._showed(notifications)
        self.feed.extend(notifications)
        self._ring()

    def trim(self, oldest_seq: int, gone: Sequence[int] | None = None) -> None:
        self.feed.trim(oldest_seq, gone)
        for browser, place in list(self._places.items()):
            if self.feed.retained.beyond(place) > BACKLOG_BYTES:
                del self._places[browser]
                self._evicted.add(browser)
        places = (place_of(place) for place in self._places.values() if place != EDGE)
        self.feed.release(min(places, default=self.feed.newest_seq))

    def reset(self, notifications: Sequence[Notification], oldest_seq: int | None = None) -> None:
        self._showed(notifications)
        self.feed.reset(notifications, oldest_seq)
        self._evicted.update(self._places)
        self._ring()

    def processes(self) -> list[dict[str, object]]:
        return []

    async def known_of(self, event_id: str, seqs: Sequence[int]) -> list[ProcessReport]:
        return []

    def state_machine(self, store: Store) -> HistoryStateMachine:
        self.feed.lost_through = store.lost_through
        if store.last_seq:
            self.reset(store.history(), store.first_seq)
        return HistoryStateMachine(store, self, self.trail)

    def change(self, config: Config, shares: Shares) -> None:
        """Nothing of it counts here."""

    def observe(self, observer: StreamObserver) -> None:
        self._observer = observer

    def disconnect(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        subscriber: str | None = None,
    ) -> int:
        """Nobody here has a token."""
        streams = [stream for stream, one in self.subscribers.items() if one == subscriber]
        for stream in streams:
            self._end(stream)
        self._ring()
        return len(streams)

    def _begin(self, after: int) -> int:
        """Say that a stream begins; return its id."""
        self._streams_begun += 1
        if self._presence is not None and self._observer is not None:
            told = self._presence.new_subscriber(0, EVERYTHING.selectors, lambda _: None)
            self.subscribers[self._streams_begun] = told.id
            reader = Reader(EVERYTHING, after, "", subscriber=told)
            self._observer.opened(self._streams_begun, reader)
        return self._streams_begun

    def _end(self, stream: int) -> None:
        if self.subscribers.pop(stream, None) is not None and self._observer is not None:
            self._observer.closed(stream)

    def _ring(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def serve(
        self,
        node: NodeView,
        publishing: Publishing,
        *,
        commands: CommandLog,
        authorizer: Authorizer,
        presence: Presence | None,
        revoking: Revoking,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.node = node
        self.publishing = publishing
        self.authorizer = authorizer
        self._presence = presence
        self.serving = True
        task_status.started(self._address)
        try:
            await trio.sleep_forever()
        finally:
            self.cut()
            with trio.CancelScope(shield=True):
                await trio.sleep(self.lingers_s)

    def abandon(self) -> None:
        self.abandoned = True

    def cut(self) -> None:
        """Reset every stream."""
        self.serving = False
        self._closed.set()
        self._closed = trio.Event()
        self._ring()

    async def follow(self, browser: "Browser") -> None:
        """Serve one stream until it is cut, or the browser's token expires."""
        await self.clock.thawed()
        ends_at = math.inf if not browser.token_s else self._admit(browser)
        with trio.CancelScope(deadline=ends_at) as lives:
            await self._follow(browser)
        if lives.cancelled_caught and self.serving:
            browser.happened("a stream ended with its token")

    def _admit(self, browser: "Browser") -> float:
        """Return when the browser's token expires; one that is over is rejected, and renewed."""
        now = unix_time()
        if browser.token and now > browser.token_ends_at:
            try:
                self._grant(browser.token, now)
            except TokenRejected:
                browser.token = ""
            assert not browser.token, f"{browser.name} was let in with a token that is over"
        if not browser.token:
            draft = TokenDraft(subscribe=["*"], issued_at=now, expires_in_s=browser.token_s)
            browser.token = signed_token(draft, SECRET.encode(), "the secret", "HS256")
            browser.token_ends_at = math.floor(now + browser.token_s)
        expires_at = self._grant(browser.token, now).expires_at
        assert expires_at == browser.token_ends_at
        return expires_at - UNIX_AT_START

    def _grant(self, token: str, now: float) -> Grant:
        presented = Presented(method="GET", hub_url=HUB, authorization=f"Bearer {token}")
        return self.authorizer.grant(presented, Action.SUBSCRIBE, now=now)

    async def _follow(self, browser: "Browser") -> None:
        known = browser.last_id is None or self.feed.position_of(browser.last_id) is not None
        if not (self.node.ready() and known):
            with trio.move_on_after(2.0) as patience:
                await self.node.barrier()
            if patience.cancelled_caught:
                return
        if not self.serving:
            return
        await self.clock.thawed()
        after = self.feed.newest_seq
        if browser.last_id is None:
            # As on a real stream: the first words tell from where to resume.
            browser.last_id = self.feed.retained.newest_cursor
            browser.begin(after)
        else:
            position = self.feed.position_of(browser.last_id)
            if position is None or self.feed.has_gap(EVERYTHING, position):
                browser.tell_gap()
                after = EDGE
            else:
                after = position
        self._count += 1
        self._places[browser] = after
        stream = self._begin(after)
        told = stream in self.subscribers
        try:
            while self.serving and told == (stream in self.subscribers):
                batch = self.feed.read(EVERYTHING, after, 1 << 20)
                if isinstance(batch, FellBehind):
                    # Whoever reads is not left behind by a burst, however short history is.
                    assert browser in self._evicted, f"{browser.name} lost its place"
                    browser.happened("a slow browser fell behind")
                    return
                if browser in self._places:
                    self._places[browser] = batch.seq
                if batch.data:
                    assert not browser.token or unix_time() <= browser.token_ends_at
                    retained = self.feed.retained
                    holes = after < 0 and retained.first_seq < retained.oldest_seq
                    browser.take(batch.data, holes=holes)
                    await browser.digest()
                    await self.clock.thawed()
                after = batch.seq
                if self.serving and after >= self.feed.newest_seq:
                    await self._news.wait()
        finally:
            self._count -= 1
            self._end(stream)
            self._places.pop(browser, None)
            self._evicted.discard(browser)


class Browser:
    """An EventSource: reconnects for ever, to any node, with the last id that it saw."""

    def __init__(
        self,
        rng: random.Random,
        name: str = "browser",
        checks: Checks | None = None,
        *,
        vanish: float = 0.0,
        away_max_s: float = 2.0,
        slow_s: float = 0.0,
        token_s: float = 0.0,
    ) -> None:
        """Vanishes with a likelihood after each piece of news, for a time; takes news slowly.

        Comes with tokens that live for `token_s`, if that is not 0.
        """
        self.rng = rng
        self.name = name
        self.checks = checks
        self.vanish = vanish
        self.away_max_s = away_max_s
        self.slow_s = slow_s
        self.token_s = token_s
        self.token = ""
        self.token_ends_at = 0.0
        self.position: int | None = None
        """Number of the last notification that it has; None until its first stream."""
        self._told_of_gap = False
        self._here: trio.CancelScope | None = None
        self.last_id: str | None = None
        self.seen: list[str] = []
        self.gaps = 0
        self.happened: Callable[[str], None] = lambda fault: None
        """Hears of each fault when it takes effect."""

    def begin(self, position: int) -> None:
        """A first stream starts after this notification."""
        self.position = position

    def tell_gap(self) -> None:
        """The node says that it does not know the last id."""
        self.gaps += 1
        self._told_of_gap = True
        self.last_id = EARLIEST

    async def digest(self) -> None:
        """Take some time for the news; perhaps go away."""
        if self.rng.random() < self.vanish and self._here is not None:
            self.happened("a browser vanished")
            self._here.cancel()
        if self.slow_s:
            self.happened("a browser was slow")
            await trio.sleep(self.rng.uniform(0.0, self.slow_s))

    def take(self, data: bytes, *, holes: bool = False) -> None:
        """Take events; with `holes` out of sparse history, in which it begins anew."""
        for block in data.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "data" in fields:
                self.seen.append(fields["data"])
                self.last_id = fields["id"]
                if self.checks is not None:
                    gap, self._told_of_gap = self._told_of_gap, False
                    self.position = self.checks.browser_saw(
                        self.name, self.position, fields["id"], gap=gap, holes=holes
                    )

    async def run(self, nodes: Sequence[MemoryClients]) -> None:
        while True:
            node = self.rng.choice(nodes)
            if node.serving:
                with trio.CancelScope() as self._here:
                    await node.follow(self)
            gone = self._here is not None and self._here.cancelled_caught
            await trio.sleep(self.rng.uniform(0.5, self.away_max_s if gone else 2.0))
