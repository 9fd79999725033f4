"""Begins streams on HTTP/1.1 connections at once: answers whoever asks, or lets him wait.

How a request is answered is decided in `subscribe.py`. One that must wait until this node has
caught up waits here, with all others that do.
"""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from noti.client_key import client_key
from noti.http import request_counts
from noti.http.answers import Answer, plain
from noti.http.config import HttpConfig
from noti.http.heads import Headers, RequestHead
from noti.http.hub_url import hub_url_of
from noti.http.known_requests import KnownRequests
from noti.http.response_heads import ResponseHeads
from noti.http.subscribe import Admission, Opening, StreamRequest
from noti.http.tls_socket import scheme_of
from noti.http.websocket_handshake import Handshake, answer_to_handshake
from noti.streams.framing import EVENT_STREAM
from noti.streams.hub import Hub
from noti.streams.open_streams import StreamLimits
from noti.streams.sockets import TimeSlice

log = structlog.get_logger("noti.http")

CHUNKED: Final = ("Transfer-Encoding", "chunked")

HandOver = Callable[[socket.socket, RequestHead, str], None]


@dataclass(slots=True, eq=False)
class StreamAsker:
    """Who asks for a stream, on a connection of his own."""

    sock: socket.socket
    head: RequestHead
    peer: str
    client_key: str = ""
    """By which he is counted while he waits for the node to catch up."""
    handshake: Handshake | None = None
    """Of a WebSocket that may be opened."""
    has_waited_for_keys: bool = False


class StreamOpenings:
    """The streams that are about to begin at one listener."""

    def __init__(
        self,
        admission: Admission,
        hub: Hub,
        config: HttpConfig,
        *,
        catch_up: Callable[[], Awaitable[None]],
        hand_over: HandOver,
        heads: ResponseHeads,
    ) -> None:
        """See `HttpAcceptor`."""
        self._admission = admission
        self._hub = hub
        self._config = config
        self._catch_up = catch_up
        self._hand_over = hand_over
        self._heads = heads
        self._slice = TimeSlice(hub.config.work_slice_s)
        self._known = KnownRequests()
        self._undecided = _WaitingAskers()
        self._without_keys = _WaitingAskers()
        self._waiting = StreamLimits(hub.config.clients_max, hub.config.clients_per_address_max)
        """Streams that wait for something."""

    def change(self) -> None:
        """Hold to the limits that the hub has now, and forget how requests were understood."""
        self._waiting.change(self._hub.config.clients_max, self._hub.config.clients_per_address_max)
        self._known = KnownRequests()

    def decide(self, asker: StreamAsker, *, caught_up: bool = False) -> None:
        """Own the socket of a whole request: answer it, begin its stream, or let it wait."""
        head = asker.head
        try:
            request = self._request_of(asker)
            if isinstance(request, Answer):
                self._answer(asker, request)
                return
            wanted = self._admission.wanted(request)
            if isinstance(wanted, Answer):
                decision: Opening | Answer | None = wanted
            else:
                decision = self._admission.decide_on(wanted, asker.peer, caught_up=caught_up)
                if isinstance(decision, Opening) and asker.handshake is None:
                    self._known.note(head, wanted)
        except Exception as error:  # noqa: BLE001 - one request's trouble is nobody else's
            log.error("request failed", path=head.path, error=repr(error))
            decision = Answer(500, [], b"")
        match decision:
            case Opening() as opening:
                self._begin(asker, opening)
            case Answer(awaits_keys=True) if asker.handshake is None:
                # There it can wait, and nobody waits with it.
                self._hand_over(asker.sock, head, asker.peer)
            case Answer(awaits_keys=True) if not asker.has_waited_for_keys and self._may_wait(
                asker
            ):
                asker.has_waited_for_keys = True
                self._without_keys.add(asker)
            case Answer() as answer:
                self._answer(asker, answer)
            case None if self._may_wait(asker):
                self._undecided.add(asker)
            case None:
                self._turn_away(asker)

    def has_begun(self, sock: socket.socket, received: bytes, peer: str) -> bool:
        """Begin a stream if these bytes, all that came, are a request that is known.

        Otherwise, or if another answer is due, nothing is done: read the head, and `decide`.
        """
        if (known := self._known.of(received)) is None:
            return False
        try:
            decision = self._admission.decide_on(known.wanted, peer)
        except Exception:  # noqa: BLE001 - `decide` will meet it again, and says so
            return False
        if not isinstance(decision, Opening):
            return False
        head = self._heads.head(200, (*decision.headers, CHUNKED), known.origin)
        self._start(sock, head, decision, known.wanted.path, 200)
        return True

    def _request_of(self, asker: StreamAsker) -> StreamRequest | Answer:
        """Return what is asked for, or what is wrong about how a WebSocket is to be opened."""
        head, peer, scheme = asker.head, asker.peer, scheme_of(asker.sock)
        if not head.header("upgrade"):
            return StreamRequest(head.path, head.query, head.header, peer, scheme=scheme)
        if asker.handshake is None:
            if not head.ends_received:
                return plain(400, "A client of a WebSocket waits for the answer before it speaks.")
            hub_url = hub_url_of(head.header, scheme, peer, self._config)
            handshake = answer_to_handshake(head.header, hub_url, self._config)
            if isinstance(handshake, Answer):
                return handshake
            asker.handshake = handshake
        header, framing = asker.handshake.header, asker.handshake.framing
        return StreamRequest(head.path, head.query, header, peer, scheme=scheme, framing=framing)

    def _begin(self, asker: StreamAsker, opening: Opening) -> None:
        if asker.handshake is not None:
            status, head = 101, asker.handshake.response(opening.headers)
        else:
            headers = [*opening.headers, CHUNKED]
            status, head = 200, self._head(asker, 200, headers)
        self._start(asker.sock, head, opening, asker.head.path, status)

    def _start(
        self, sock: socket.socket, head: bytes, opening: Opening, path: str, status: int
    ) -> None:
        if _sent(sock, head + opening.wire):
            request_counts.count("GET", path, status)
            self._hub.adopt(sock, opening.reader)
        else:
            sock.close()

    def _turn_away(self, asker: StreamAsker) -> None:
        framing = EVENT_STREAM if asker.handshake is None else asker.handshake.framing
        self._answer(asker, self._admission.turn_away(framing))

    def _answer(self, asker: StreamAsker, answer: Answer) -> None:
        if answer.status == 101:
            assert asker.handshake is not None, "only then a WebSocket is opened"
            request_counts.count("GET", asker.head.path, 101)
            _sent(asker.sock, asker.handshake.response(answer.headers) + answer.body)
            asker.sock.close()
            return
        length = ("Content-Length", str(len(answer.body)))
        headers = [*answer.headers, length, ("Connection", "close")]
        request_counts.count("GET", asker.head.path, answer.status)
        _sent(asker.sock, self._head(asker, answer.status, headers) + answer.body)
        asker.sock.close()

    def _head(self, asker: StreamAsker, status: int, headers: Headers) -> bytes:
        return self._heads.head(status, headers, asker.head.header("origin"))

    # Those that wait until the node has caught up, or has newer keys

    def _may_wait(self, asker: StreamAsker) -> bool:
        """Whether there will be room for this stream once the node has caught up.

        Notes that it waits.
        """
        if self._hub.clients + self._waiting.count >= self._hub.limits.streams_max:
            return False
        if self._waiting.counts_clients:
            forwarded_for = asker.head.header("x-forwarded-for")
            proxies = self._config.trusted_proxies
            asker.client_key = client_key(asker.peer, forwarded_for, proxies)
            if self._waiting.reached(asker.client_key):
                return False
        self._waiting.begin(asker.client_key)
        return True

    async def run(self) -> None:
        """Catch up once for all that wait, until cancelled; who comes meanwhile is the next batch.

        The same for WebSockets whose tokens have unknown keys.
        Resource handling: closes the sockets of those that wait.
        """
        async with trio.open_nursery() as nursery:
            if (newer_keys := self._admission.newer_keys) is not None:
                nursery.start_soon(self._serve, self._without_keys, newer_keys)
            await self._serve(self._undecided, self._catch_up)

    async def _serve(self, queue: "_WaitingAskers", wait: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                await queue.any.wait()
                await self._decide_batch(queue, wait)
        finally:
            for asker in queue.take_all():
                asker.sock.close()

    async def _decide_batch(
        self, queue: "_WaitingAskers", wait: Callable[[], Awaitable[None]]
    ) -> None:
        batch = queue.take_all()
        caught_up = queue is self._undecided
        try:
            with trio.move_on_after(self._config.catch_up_wait_s) as patience:
                await wait()
            self._slice.begin()
            while batch:
                asker = batch.pop()
                self._waiting.end(asker.client_key)
                if caught_up and patience.cancelled_caught:
                    self._turn_away(asker)
                else:
                    self.decide(asker, caught_up=caught_up)
                await self._slice.checkpoint_if_over()
        finally:
            for asker in batch:
                self._waiting.end(asker.client_key)
                asker.sock.close()


def _sent(sock: socket.socket, data: bytes) -> bool:
    """Send the first bytes on a connection; return False if it is broken.

    Its buffer is empty, and takes them.
    """
    try:
        return sock.send(data) == len(data)
    except OSError:
        return False


class _WaitingAskers:
    """Those who wait for the same thing."""

    def __init__(self) -> None:
        self.any = trio.Event()
        self._askers: list[StreamAsker] = []

    def add(self, asker: StreamAsker) -> None:
        """Let one more wait."""
        self._askers.append(asker)
        self.any.set()

    def take_all(self) -> list[StreamAsker]:
        """Return those who wait; those who come from now on are the next ones."""
        taken, self._askers, self.any = self._askers, [], trio.Event()
        return taken
