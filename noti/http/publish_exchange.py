"""Keeps the requests and the answers of one publisher's connection in order; no socket is touched.

Requests are read one behind the other, several may be committing at once, and answers leave in the
order of the requests. What must not be read is refused before it is.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final, NamedTuple

from noti.authorization.grant import Grant
from noti.http import request_counts
from noti.http.answers import Answer
from noti.http.config import HttpConfig
from noti.http.heads import RequestHead, RequestRejection, rejection_response
from noti.http.hub_url import hub_url_of
from noti.http.publish import PublishRequest
from noti.http.publish_endpoint import PATH, BodyRoom, OnAnswer, PublishEndpoint
from noti.http.publish_requests import Cut, PublishRequests, body_bytes
from noti.http.response_heads import ResponseHeads

REQUESTS_MAX: Final = 64
"""Requests of one connection without an answer; with so many it is not read. Fewer would do: a
publisher that waits for a round to the others with ten requests waits hardly less with more."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
TIMED_OUT: Final = RequestRejection(408, "The rest of this request did not come in time.")


class Phase(Enum):
    """What a connection waits for."""

    IDLE = "idle"
    HEAD = "head"
    """The rest of a head."""
    BODY = "body"
    """The rest of a body."""
    COMMIT = "commit"
    PASSES_ON = "passes on"
    """Nothing: its next request is for somebody else."""
    OVER = "over"
    """Nothing: it is to be closed."""


class _Reading(Enum):
    """What comes next on a connection."""

    HEAD = "head"
    BODY = "body"
    UNWANTED = "unwanted"
    """A body that is dropped, as its request is answered already."""
    NOTHING = "nothing"


class WholeRequest(NamedTuple):
    """A request that can be submitted."""

    grant: Grant
    request: PublishRequest
    body: bytes
    on_answer: OnAnswer


@dataclass(slots=True, eq=False)
class _Place:
    """A request's place in the order of answers."""

    origin: str = ""
    closes: bool = False
    """Whether the connection ends with this answer."""
    answer: bytes | None = None
    """None until it is known."""


class PublishExchange:
    """What one connection has asked, and what it is to be told."""

    def __init__(
        self,
        peer: str,
        endpoint: PublishEndpoint,
        heads: ResponseHeads,
        config: HttpConfig,
        on_answer: Callable[[], None],
        scheme: str = "http",
    ) -> None:
        """`on_answer` is called whenever there may be something to send."""
        self.peer = peer
        self._scheme = scheme
        self._endpoint = endpoint
        self._config = config
        self._heads = heads
        self._body_bytes_max = config.publish_body_bytes_max
        self._on_answer = on_answer
        self._stream = PublishRequests(config.head_bytes_max)
        self._places: deque[_Place] = deque()
        self._reading = _Reading.HEAD
        self._head: RequestHead | None = None
        """The last one: often the next one is the same, read once."""
        self._request: PublishRequest | None = None
        self._origin = ""
        self._grant: Grant | None = None
        self._room: BodyRoom | None = None
        self._size_bytes = 0
        """Of the body behind the last head."""
        self._expects = False
        """Whether its client waits to be told to go on."""
        self._last = False
        """Whether its client says that it is the last one."""
        self._left = 0
        """Bytes of the body that is read, or of what is still to be dropped of it."""
        self._closes = False
        """Whether the request that is read is the last one."""
        self._passes_on = False
        self.begun = 0
        """How many requests have begun."""
        self.lingers = False
        """Whether something may still come after the last answer."""
        self.paused = False
        """Whether there may be whole requests that wait until others are answered."""

    @property
    def phase(self) -> Phase:
        """What the connection waits for."""
        reading = self._reading
        if reading is _Reading.HEAD:
            if self._stream.waiting and not self.paused:
                return Phase.HEAD
            return Phase.COMMIT if self._places else Phase.IDLE
        if reading is not _Reading.NOTHING:
            return Phase.BODY
        if self._places:
            return Phase.COMMIT
        return Phase.PASSES_ON if self._passes_on else Phase.OVER

    @property
    def wants_input(self) -> bool:
        """Whether the connection is to be read."""
        return self._reading is not _Reading.NOTHING and len(self._places) < REQUESTS_MAX

    @property
    def unanswered(self) -> int:
        """How many requests have no answer yet, or one that waits for its turn."""
        return len(self._places)

    @property
    def unread_bytes(self) -> int:
        """What came and is neither read nor part of a body."""
        unread_bytes = len(self._stream.waiting)
        if self._reading is _Reading.BODY:
            unread_bytes = max(0, unread_bytes - self._left)
        return unread_bytes

    # Requests

    def receive(self, data: bytes) -> None:
        """Take what came in."""
        self._stream.feed(data)

    def advance(self) -> list[WholeRequest]:
        """Read as far as possible; return what is to be submitted, in this order."""
        whole = []
        self.paused = False
        while self._reading is not _Reading.NOTHING:
            if len(self._places) >= REQUESTS_MAX:
                self.paused = True
                break
            if self._reading is _Reading.HEAD:
                head = self._stream.take_head()
                if head is Cut.MORE:
                    break
                self._begin_request(head)
            elif self._reading is _Reading.BODY:
                body = self._stream.take_body(self._left)
                if body is None:
                    break
                whole.append(self._end_request(body))
            else:
                self._left = self._stream.drop(self._left)
                if self._left:
                    break
                self._read_on()
        return whole

    def end_input(self) -> None:
        """Note that nothing more comes; what was asked is answered."""
        self._stop_reading()

    def time_out(self) -> None:
        """Answer that the rest of a request did not come in time; nothing more is read."""
        unwanted = self._reading is _Reading.UNWANTED
        self._stop_reading()
        if not unwanted:
            self._reject(TIMED_OUT)

    def drain(self) -> None:
        """Read no request any more but the one whose body is being read."""
        self._closes = True
        if self._reading is _Reading.HEAD:
            self._stop_reading()
            if self._places:
                self._places[-1].closes = True

    def take_rest(self) -> bytes:
        """Return what came of a request that is for somebody else."""
        return self._stream.take_rest()

    def _begin_request(self, head: RequestHead | RequestRejection | Cut) -> None:
        if isinstance(head, RequestRejection):
            self._stop_reading()
            self.lingers = True
            self._reject(head)
            return
        if isinstance(head, Cut):
            self._reading, self._passes_on = _Reading.NOTHING, True
            return
        self.begun += 1
        if head is not self._head or self._request is None:
            self._head = head
            hub_url = hub_url_of(head.header, self._scheme, self.peer, self._config)
            self._request = PublishRequest(head.path, head.query, head.header, self.peer, hub_url)
            self._origin = head.header("origin")
            self._size_bytes = body_bytes(head)
            self._expects = head.header("expect").lower() == "100-continue"
            self._last = "close" in head.header("connection").lower()
        self._left = self._size_bytes
        self._closes = self._closes or self._last
        is_here = len(self._stream.waiting) >= self._left
        grant = self._endpoint.admit(self._request)
        refusal = grant if isinstance(grant, Answer) else self._reserve(is_here=is_here)
        if isinstance(grant, Answer) or refusal is not None:
            assert refusal is not None
            self._refuse(refusal, is_coming=is_here or not self._expects)
            return
        self._grant = grant
        self._reading = _Reading.BODY
        if self._expects and not is_here:
            self._places.append(_Place(answer=CONTINUE))
            self._on_answer()

    def _reserve(self, *, is_here: bool) -> Answer | None:
        """Make room for the body, unless it is here: then it takes no more than it does."""
        if is_here and self._left <= self._body_bytes_max:
            return None
        room = self._endpoint.reserve(self._left)
        if isinstance(room, Answer):
            return room
        self._room = room
        return None

    def _refuse(self, answer: Answer, *, is_coming: bool) -> None:
        """Answer before the body; the connection goes on behind it, unless that is too far."""
        place = _Place(self._origin)
        self._places.append(place)
        if is_coming and self._left <= self._body_bytes_max:
            self._reading = _Reading.UNWANTED
        else:
            self._closes = self.lingers = True
            self._reading = _Reading.NOTHING
        place.closes = self._closes
        self._answer(place, answer)

    def _end_request(self, body: bytes) -> WholeRequest:
        assert self._request is not None, "its head was read"
        assert self._grant is not None
        self._give_room_back()
        place = _Place(self._origin, self._closes)
        self._places.append(place)
        self._read_on()
        return WholeRequest(self._grant, self._request, body, partial(self._answer, place))

    def _read_on(self) -> None:
        self._reading = _Reading.NOTHING if self._closes else _Reading.HEAD

    def _stop_reading(self) -> None:
        self._give_room_back()
        self._reading = _Reading.NOTHING

    def _give_room_back(self) -> None:
        if self._room is not None:
            self._room.release()
            self._room = None

    # Answers

    def take_output(self) -> bytes:
        """Return what is to be sent now."""
        parts = []
        while self._places and (answer := self._places[0].answer) is not None:
            parts.append(answer)
            self._places.popleft()
        return b"".join(parts)

    def _answer(self, place: _Place, answer: Answer) -> None:
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        if place.closes:
            headers.append(("Connection", "close"))
        head = self._heads.head(answer.status, headers, place.origin)
        request_counts.count("POST", PATH, answer.status)
        place.answer = head + answer.body
        self._on_answer()

    def _reject(self, rejection: RequestRejection) -> None:
        request_counts.count_unread(rejection.status)
        self._places.append(_Place(closes=True, answer=rejection_response(rejection)))
        self._on_answer()
