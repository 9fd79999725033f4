"""Decides what a reader of an event stream does next: read, reconnect, follow a redirect, or stop.

Enters: heads of responses, bytes of bodies, ends and failures of connections; a generator.
Leaves: events, and how long to wait before the next attempt.
Never: I/O, clocks.

With several URLs, nodes of one cluster, the next one is tried when one does not answer: at once, as
long as there is one that has not been tried in this round. So it is with a server that is none of
them, as long as not all are such.

It does what an `EventSource` does (WHATWG HTML 9.2.2 to 9.2.4: resume from the last id, 204 is the
end, `retry:` is obeyed), and what a browser leaves to its page: it reconnects also after 429 and
5xx, waits longer after each failure, and never reconnects in step with others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias
from urllib.parse import urljoin, urlsplit

from noti.backoff import Backoff
from noti.client.event_stream import EventStreamParser, StreamEvent
from noti.client.strangers import is_strangers, type_of

RECONNECTION_S: Final = 1.0
"""Until the server orders another delay; browsers have 2 to 5 seconds."""
RECONNECTION_S_MIN: Final = 0.1
"""However short a delay the server orders (`retry: 0`): if it is dead, the next attempt fails at
once, and so would the one after it."""
RECONNECTION_S_MAX: Final = 30.0
"""Doubling ends here; a longer delay that the server orders is kept."""
REDIRECTS_MAX: Final = 20
"""In a row, as browsers have it (Fetch, 4.4)."""

EVENT_STREAM: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Open:
    """Read on: the body is an event stream."""

    resumed_from: str | None
    """The event after which the server resumes, if it reports that."""


@dataclass(frozen=True, slots=True)
class Move:
    """Ask again at once, elsewhere."""

    url: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Wait and connect again."""

    after_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The server ended the stream permanently, in good order."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Trying again will not help; `why` is one line."""

    why: str


NextStep: TypeAlias = Open | Move | Reconnect | Stop | GiveUp


class Reconnection:
    """One stream over all its connections."""

    def __init__(self, url: str | Sequence[str], rng: Random, last_event_id: str = "") -> None:
        """Begin at `url`, or the first of several, after `last_event_id` if there is one."""
        self._urls = [url] if isinstance(url, str) else list(url)
        self._turn = 0
        """Which of the URLs is asked."""
        self._untried = len(self._urls)
        """URLs of this round that have not failed."""
        self._answered = False
        """Whether a stream began at the URL that is asked."""
        self._strangers = 0
        """How many answers in a row were other servers'."""
        self.url = self._urls[0]
        self._origins = frozenset(map(_origin, self._urls))
        self._parser = EventStreamParser(last_event_id)
        self._reconnection_s = RECONNECTION_S
        self._backoff = Backoff(rng, first_s=RECONNECTION_S / 2, most_s=RECONNECTION_S_MAX)
        self._redirects = 0

    @property
    def last_event_id(self) -> str:
        """Where the next connection resumes; empty for nowhere."""
        return self._parser.last_event_id

    @property
    def at_home(self) -> bool:
        """Whether the next request goes to an origin that was named, and may carry secrets."""
        return _origin(self.url) in self._origins

    def request_headers(self) -> list[tuple[str, str]]:
        """Return what a request needs besides its host."""
        headers = [("Accept", EVENT_STREAM), ("Cache-Control", "no-store")]
        if self.last_event_id:
            headers.append(("Last-Event-ID", self.last_event_id))
        return headers

    def answered(self, status: int, headers: Mapping[str, str]) -> NextStep:
        """Take the head of a response; `headers` by lower-case name."""
        self._parser = EventStreamParser(self.last_event_id)
        match status:
            case 200:
                media_type = type_of(headers)
                if media_type != EVENT_STREAM:
                    why = f"it answers with {media_type or 'no type'}, not {EVENT_STREAM}"
                    return self._stranger(why)
                self._redirects = self._strangers = 0
                self._answered = True
                resumed_from = headers.get("last-event-id", headers.get("mercure-last-event-id"))
                return Open(resumed_from)
            case 204:
                return Stop()
            case 301 | 302 | 303 | 307 | 308 if "location" in headers:
                return self._moved(status, headers["location"])
            case 429 | 500 | 502 | 503 | 504:
                wanted = headers.get("retry-after", "")
                least_s = float(wanted) if wanted.isascii() and wanted.isdigit() else 0.0
                return self._reconnect(f"it answers with status {status}", least_s)
            case _ if is_strangers(status, headers):
                return self._stranger(f"it answers with status {status}")
            case _:
                return GiveUp(f"it answers with status {status}")

    def feed(self, data: bytes) -> Sequence[StreamEvent]:
        """Return the events that `data` completes. Raises `MessageInvalid` for an endless one."""
        events = self._parser.feed(data)
        if self._parser.retry_ms is not None:
            self._reconnection_s = max(self._parser.retry_ms / 1000, RECONNECTION_S_MIN)
            self._backoff.first_s = self._reconnection_s / 2
        self._backoff.succeeded()
        return events

    def ended(self, why: str) -> Reconnect:
        """The stream, or the attempt to open it, came to an end."""
        return self._reconnect(why, 0.0)

    def _stranger(self, why: str) -> Reconnect | GiveUp:
        strangers = self._strangers + 1
        if strangers >= len(self._urls):
            return GiveUp(why)
        step = self._reconnect(why, 0.0)
        self._strangers = strangers
        return step

    def _reconnect(self, why: str, least_s: float) -> Reconnect:
        self._strangers = 0
        self._turn = (self._turn + 1) % len(self._urls)
        self._redirects = 0
        self.url = self._urls[self._turn]
        if not self._answered and self._untried > 1:
            self._untried -= 1
            return Reconnect(0.0, why)
        self._untried, self._answered = len(self._urls), False
        return Reconnect(self._backoff.failed(max(self._reconnection_s, least_s)), why)

    def _moved(self, status: int, location: str) -> NextStep:
        self._redirects += 1
        if self._redirects > REDIRECTS_MAX:
            return GiveUp("it redirects without end")
        target = urljoin(self.url, location)
        if urlsplit(target).scheme not in ("http", "https"):
            return GiveUp(f"it redirects to {target!r}, which is not on the web")
        if urlsplit(self.url).scheme == "https" and urlsplit(target).scheme == "http":
            return GiveUp(f"it redirects from https to {target!r}")
        self.url = target
        if status in (301, 308):
            self._urls[self._turn] = target
        return Move(target)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
