"""Hundreds of browsers in one process: `python -m tests.soak.fleet`, told what to do by lines.

Enters: orders, one JSON object a line on stdin; streams. Leaves: what the browsers saw, one JSON
object a line on stdout, twice a second.
Never: a browser that reads and is slower than its node because of another browser.

A browser comes back with its last event id, at another node; a few never read. Some have no token:
they see what is public, in the same order, and nothing else.
"""

import heapq
import json
import math
import os
import random
import resource
import select
import ssl
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from noti.client.event_stream import EventStreamParser
from noti.errors import MessageInvalid
from tests.bench.load.mark import marks_of
from tests.bench.load.reading import Reader, Reading
from tests.soak.connections import Connection, Ended, trusting
from tests.soak.conversations import OK, Request, Stream, conversation
from tests.soak.ledger import EXAMPLES_MAX, NEWCOMER, Ledger, first_with_id, is_private
from tests.soak.setups import PUBLIC_EVERY, Transport, label, spoken, transport_of
from tests.soak.websockets import GAP_KEY

ORDER_BYTES = 256 * 1024
HEAD_S_MAX = 4.0
"""Longer than a node waits for its own catching up (2 s) before it answers."""
RETRY_S = 1.0
"""Until the server orders another delay."""
REPORT_S = 0.5
SILENCE_S_MIN = 0.5
"""Shorter silences are not reported."""
IDLE_BACK_S = 5.0
CONNECTED_S = 20.0, 60.0
"""After so long a browser goes on at any node, so that no node has all of them after a while."""


class SoakReader(Reader):
    """Finds the news of a gap too."""

    def read_with(self, parser: EventStreamParser, data: bytes) -> Reading:
        keys: list[int] = []
        for event in parser.feed(data):
            if event.type == "noti-gap":
                keys.append(GAP_KEY)
            keys += [seq for seq, _ in marks_of(self.run, event.data.encode())]
        last_event_id = None if parser.last_event_id == "\0" else parser.last_event_id
        return Reading(tuple(keys), GAP_KEY not in keys, 0, last_event_id, parser.retry_ms)


@dataclass(eq=False)
class Browser:
    """One browser."""

    number: int
    node: int
    """Where it reads, or wants to."""
    idle: bool = False
    public: bool = False
    """Without a token."""
    place: int = 0
    resumed: str = ""
    """What it had when it last tried to connect, in words."""
    last_event_id: str = "earliest"
    retry_s: float = RETRY_S
    connection: Connection | None = None
    stream: Stream | None = None
    """What it reads there."""
    began: float = 0.0
    """When it last tried to connect."""
    newcomer: bool = False
    first_place: int | None = None
    leaves_at: float = 0.0
    after_gap: bool = False
    """It was told of a gap, and nothing since."""
    transport: Transport = field(init=False)

    def __post_init__(self) -> None:
        self.transport = transport_of(self.number)
        self.name = f"browser {self.number} ({self.transport.value})"

    def __str__(self) -> str:
        return self.name

    @property
    def reads(self) -> bool:
        """Whether a node answered and goes on doing so."""
        return self.stream is not None and self.stream.status == OK


class Fleet:
    """All browsers, and the sequence that they see."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._nodes = [tuple(address) for address in told["nodes"]]
        self._gaps_allowed = told["gaps_allowed"]
        self._run, self._token = told["run"], told["token"]
        self._ledger = Ledger()
        self._public = Ledger() if self._token else self._ledger
        """Of those without a token, if the others have one."""
        self._leaked = 0
        """Private events that those got."""
        self._stays = False
        self._reader = SoakReader(told["run"])
        self._epoll = select.epoll()
        self._browsers = [
            Browser(
                number,
                number % len(self._nodes),
                idle=number < told["idle"],
                public=bool(self._token) and number % PUBLIC_EVERY == 0,
            )
            for number in range(told["clients"] + told["idle"])
        ]
        self._by_fd: dict[int, Connection] = {}
        self._readers: dict[Stream, Browser] = {}
        self._tls = set(told["tls"])
        """The places of nodes that have it."""
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._ca_pem = told["ca"]
        self._by_transport: Counter[str] = Counter()
        """Deliveries."""
        self._closes: Counter[str] = Counter()
        """WebSockets that ended, by the code of their close."""
        self._refused: Counter[str] = Counter()
        """Answers other than a stream."""
        self._later = [(0.0, browser.number, browser) for browser in self._browsers]
        self._orders = b""
        self._deliveries = self._gaps = self._idle_opened = self._opened = 0
        self._ends: list[tuple[float, int, float]] = []
        self._silences: list[tuple[float, float]] = []
        self._newest_at = self._busy_s = 0.0
        self._rng = random.Random(told["seed"])

    def run(self) -> None:
        """Serve until stdin ends."""
        os.set_blocking(0, False)
        self._epoll.register(0, select.EPOLLIN)
        report_at, turned_at = 0.0, time.monotonic()
        while True:
            ready = self._epoll.poll(0.1, 1024)
            self._busy_s = max(self._busy_s, time.monotonic() - turned_at)
            turned_at = time.monotonic()
            for fd, events in ready:
                if fd == 0:
                    if not self._take_orders():
                        return
                elif connection := self._by_fd.get(fd):
                    self._turn(connection, events)
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._connect(heapq.heappop(self._later)[2])
            if now >= report_at:
                report_at = now + REPORT_S
                self._give_up_on_the_silent(now)
                self._move_on(now)
                _say(self._report())

    # --- orders -----------------------------------------------------------------------------------

    def _take_orders(self) -> bool:
        data = os.read(0, ORDER_BYTES)
        *lines, self._orders = (self._orders + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            match order["do"]:
                case "missing":
                    missing = self._missing(order["acknowledged"])
                    _say({"missing": len(missing), "some": missing[:20]})
                case "stay":
                    self._stay()
                case "newcomers":
                    self._add_newcomers()
                case unknown:
                    raise AssertionError(unknown)
        return bool(data)

    def _stay(self) -> None:
        """From now on nobody moves on, and those who never read are gone for good."""
        self._stays = True
        for browser in [one for one in self._readers.values() if one.idle]:
            self._lost(browser)
        self._later = [entry for entry in self._later if not entry[2].idle]
        heapq.heapify(self._later)

    def _missing(self, acknowledged: list[int]) -> list[int]:
        """Return what some kind of browser never saw, or saw in another order than the other."""
        missing = self._ledger.missing(acknowledged)
        if self._public is self._ledger:
            return missing
        for_all = [key for key in self._ledger.order if not is_private(key)]
        missing += self._public.missing(acknowledged, public=True)
        return missing + [
            one for one, other in zip(for_all, self._public.order, strict=False) if one != other
        ]

    def _ledger_of(self, browser: Browser) -> Ledger:
        return self._public if browser.public else self._ledger

    def _behind(self, browser: Browser) -> int:
        return len(self._ledger_of(browser).order) - max(0, browser.place)

    def _add_newcomers(self) -> None:
        """One at each node, who asks for all that there is."""
        for node in range(len(self._nodes)):
            number = len(self._browsers)
            browser = Browser(number, node, place=NEWCOMER, newcomer=True)
            self._browsers.append(browser)
            heapq.heappush(self._later, (0.0, number, browser))

    def _report(self) -> dict[str, Any]:
        ledger, reading = self._ledger, [one for one in self._browsers if not one.idle]
        ledgers = {id(one): one for one in (ledger, self._public)}.values()
        placed = [one for one in reading if not one.after_gap] or reading
        slowest = max(placed, key=self._behind)
        ends, self._ends = self._ends, []
        silences, self._silences = self._silences, []
        return {
            "events": len(ledger.order),
            "deliveries": self._deliveries,
            "lost": sum(one.lost for one in ledgers),
            "twice": sum(one.twice for one in ledgers),
            "disorder": sum(one.disorder for one in ledgers),
            "leaked": self._leaked,
            "gaps": self._gaps,
            "examples": [example for one in ledgers for example in one.examples],
            "slowest": len(ledger.order) - self._behind(slowest),
            "slowest_is": f"{slowest}, at node {slowest.node + 1}",
            "behind": sum(map(self._behind, placed)),
            "open": sum(browser.stream is not None for browser in reading),
            "reading": sum(browser.reads for browser in reading),
            "by_transport": self._by_transport,
            "closes": self._closes,
            "refused": self._refused,
            "opened": self._opened,
            "idle_opened": self._idle_opened,
            "ends": ends,
            "silences": silences,
            "newest_at": self._newest_at,
            "busy_s": self._busy_s,
            "first_places": [one.first_place for one in reading if one.newcomer],
        }

    # --- connections ------------------------------------------------------------------------------

    def _connect(self, browser: Browser) -> None:
        browser.began = time.monotonic()
        first = first_with_id(self._run, browser.last_event_id)
        if first is not None:
            browser.place = self._ledger_of(browser).resume_at(browser.place, first)
        browser.resumed = f"{browser.place} events, the last one {browser.last_event_id},"
        token = "" if browser.public else self._token
        request = Request(browser.last_event_id, token, in_subprotocol=browser.number % 2 == 0)
        try:
            connection = self._connection_for(browser)
        except Ended:
            self._come_back(browser)
            return
        browser.connection = connection
        browser.stream = connection.conversation.begin(request)
        self._readers[browser.stream] = browser
        if connection.established:
            self._turn(connection, 0)

    def _connection_for(self, browser: Browser) -> Connection:
        """Return one that takes another stream, or a new one; raises `Ended`."""
        has_tls = browser.node in self._tls
        transport = spoken(browser.transport, has_tls=has_tls)
        if transport is Transport.HTTP_2 and not browser.idle:
            for one in self._by_fd.values():
                words = one.conversation
                shared = words.protocol == "h2" and not one.idle and words.takes_more
                if shared and one.node == browser.node:
                    return one
        is_even = browser.number % 2 == 0
        words = conversation(transport, self._reader, has_wide_windows=is_even)
        context = self._trusting(words.protocol) if has_tls else None
        address = self._nodes[browser.node]
        connection = Connection(browser.node, address, words, context, idle=browser.idle)
        self._by_fd[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), connection.interest)
        return connection

    def _trusting(self, protocol: str) -> ssl.SSLContext:
        if protocol not in self._contexts:
            self._contexts[protocol] = trusting(self._ca_pem, protocol)
        return self._contexts[protocol]

    def _turn(self, connection: Connection, events: int) -> None:
        try:
            was_established = connection.established
            data = connection.turn(events)
            if connection.idle and connection.established and not was_established:
                self._idle_opened += 1
            self._read(connection, data)
            connection.flush()
        except Ended:
            self._broken(connection)
            return
        if connection.conversation.streams:
            self._epoll.modify(connection.fileno(), connection.interest)
        else:
            self._broken(connection)

    def _read(self, connection: Connection, data: bytes) -> None:
        if not data:
            return
        try:
            taken = connection.conversation.take(data)
        except MessageInvalid as error:
            for stream in connection.conversation.streams:
                ledger = self._ledger_of(self._readers[stream])
                ledger.examples.append(f"{self._readers[stream]} cannot read its stream: {error}")
                ledger.disorder += 1
            raise Ended("it cannot be read") from error
        for stream, readings in taken:
            browser = self._readers.get(stream)
            if browser is None:
                continue
            if stream.status == OK and not browser.leaves_at:
                self._opened += 1
                browser.leaves_at = time.monotonic() + self._rng.uniform(*CONNECTED_S)
            if stream.status not in (0, OK):
                self._refused[f"{stream.status} for {browser.transport.value}"] += 1
            for reading in readings:
                self._take(browser, reading)
            if stream.ended:
                self._lost(browser)

    def _take(self, browser: Browser, reading: Reading) -> None:
        known = len(self._ledger.order)
        if reading.seqs:
            keys = [key for key in reading.seqs if key != GAP_KEY]
            if browser.public:
                self._leaked += sum(map(is_private, keys))
            gaps = len(reading.seqs) - len(keys)
            self._gaps += gaps
            if gaps and not self._gaps_allowed:
                self._note(browser, "was told of a gap")
            self._deliveries += len(keys)
            has_tls = browser.node in self._tls
            over = spoken(browser.transport, has_tls=has_tls)
            self._by_transport[label(over, has_tls=has_tls)] += len(keys)
            browser.after_gap = browser.after_gap or (gaps > 0 and self._gaps_allowed)
            keys = self._behind_the_gap(browser, keys) if browser.after_gap else keys
            ledger = self._ledger_of(browser)
            wrong = ledger.lost + ledger.twice
            browser.place = ledger.see(str(browser), browser.place, keys)
            if ledger.lost + ledger.twice > wrong:
                self._note(browser, "saw that")
            if browser.first_place is None and keys:
                browser.first_place = browser.place - len(keys)
        if reading.last_event_id is not None:
            browser.last_event_id = reading.last_event_id
        if reading.retry_ms is not None:
            browser.retry_s = reading.retry_ms / 1000
        if len(self._ledger.order) > known:
            now = time.monotonic()
            if self._newest_at and now - self._newest_at > SILENCE_S_MIN:
                self._silences.append((self._newest_at, now))
            self._newest_at = now

    def _note(self, browser: Browser, what: str) -> None:
        ledger = self._ledger_of(browser)
        if len(ledger.examples) < EXAMPLES_MAX:
            ledger.examples.append(
                f"{browser} {what} at node {browser.node + 1}: it had {browser.resumed} when it "
                f"came, of {len(ledger.order)} events there are now"
            )

    def _behind_the_gap(self, browser: Browser, keys: list[int]) -> list[int]:
        """Return what a browser sees from the first event on whose place is known; put it there."""
        for number, key in enumerate(keys):
            place = self._ledger_of(browser).after_gap(browser.place, key)
            if place is not None:
                browser.place, browser.after_gap = place, False
                return keys[number:]
        return []

    def _give_up_on_the_silent(self, now: float) -> None:
        for browser in list(self._readers.values()):
            established = browser.connection is not None and browser.connection.established
            patient = browser.reads or (browser.idle and established)
            if not patient and now - browser.began > HEAD_S_MAX:
                self._lost(browser)

    def _move_on(self, now: float) -> None:
        """Let those who were at their node for long go on at any."""
        for browser in list(self._readers.values()):
            may_leave = not (browser.newcomer or self._stays or browser.idle)
            if browser.reads and now > browser.leaves_at and may_leave:
                self._leave(browser)
                browser.node = self._rng.randrange(len(self._nodes))
                self._come_back(browser)

    def _broken(self, connection: Connection) -> None:
        """The connection ended, with all that is on it; or nothing is on it any more."""
        for stream in list(connection.conversation.streams):
            if stream in self._readers:
                self._lost(self._readers[stream])
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        if self._by_fd.pop(connection.fileno(), None) is not None:
            self._epoll.unregister(connection.fileno())
            connection.close()

    def _lost(self, browser: Browser) -> None:
        """The stream ended or could not be opened: come back later, at any other node."""
        if browser.reads:
            assert browser.stream is not None
            # Rounded up: an end must not seem to be earlier than the trouble that made it.
            at = math.ceil(time.monotonic() * 10) / 10
            self._ends.append((at, browser.node, browser.began))
            if browser.transport.subprotocol:
                self._closes[str(browser.stream.close_code)] += 1
        self._leave(browser)
        if not browser.newcomer:
            # Not at the next one: after a rolling restart all of them would be at the first.
            others = range(1, max(2, len(self._nodes)))
            browser.node = (browser.node + self._rng.choice(others)) % len(self._nodes)
        self._come_back(browser)

    def _leave(self, browser: Browser) -> None:
        """Read no more of its stream."""
        connection, stream = browser.connection, browser.stream
        assert connection is not None
        assert stream is not None
        self._readers.pop(stream, None)
        connection.conversation.leave(stream)
        browser.connection = browser.stream = None
        browser.leaves_at = 0.0
        if not connection.conversation.streams:
            self._close(connection)
        elif connection.fileno() in self._by_fd:
            self._epoll.modify(connection.fileno(), connection.interest)

    def _come_back(self, browser: Browser) -> None:
        pause_s = IDLE_BACK_S if browser.idle else browser.retry_s
        back_at = time.monotonic() + pause_s * self._rng.uniform(0.5, 1)
        heapq.heappush(self._later, (back_at, browser.number, browser))


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the fleet that the first line of stdin describes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with os.fdopen(0, "rb", buffering=0, closefd=False) as stdin:
        told = json.loads(stdin.readline())
    Fleet(told).run()


if __name__ == "__main__":
    main()
