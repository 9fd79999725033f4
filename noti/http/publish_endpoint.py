"""Takes events over HTTP: what all ways in of one node share.

Joins the decisions of `publish.py` to whoever knows the publishers and to the log, counts, and
bounds what the bodies of all requests take together.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from noti.address import HUB_PATH
from noti.authorization.grant import Grant
from noti.http import publish
from noti.http.answers import Answer
from noti.http.config import HttpConfig
from noti.http.publish import PublishAuthorizer, PublishRequest
from noti.publishing.ports import Outcome, Publishing

log = structlog.get_logger("noti.http")

PUBLISHED = Counter("noti_http_published_total", "Events committed that came over HTTP.")
BODIES = Gauge("noti_http_body_bytes", "Memory kept for the bodies of requests to publish.")

PATH: Final = HUB_PATH
"""Where events are published."""

OnAnswer = Callable[[Answer], None]
"""Takes the answer to one request, once, at any time. Never waits, never raises."""


class PublishEndpoint:
    """The way in for events of one node."""

    def __init__(
        self,
        publishing: Publishing,
        authorizer: PublishAuthorizer,
        config: HttpConfig,
        unix_time: Callable[[], float] = time.time,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take whatever `authorizer` allows at `unix_time()`, once this node has been `ready`.

        Before that, it may not know yet which tokens are revoked.
        """
        self._ready = ready
        self._was_ready = False
        self._publishing = publishing
        self._authorizer = authorizer
        self._config = config
        self._unix_time = unix_time
        self._room = config.publish_bodies_bytes_max
        BODIES.set_function(lambda: config.publish_bodies_bytes_max - self._room)

    @property
    def body_bytes_max(self) -> int:
        """How long the body of one request may be."""
        return self._config.publish_body_bytes_max

    def admit(self, request: PublishRequest) -> Grant | Answer:
        """Return what the publisher may do, or how to answer it before its body is read."""
        self._was_ready = self._was_ready or self._ready()
        if not self._was_ready:
            return publish.not_ready()
        try:
            return publish.admit(request, self._authorizer, self._unix_time())
        except Exception as error:  # noqa: BLE001 - one request's trouble is nobody else's
            return self._failed(error)

    def reserve(self, body_bytes: int | None) -> "BodyRoom | Answer":
        """Return room for a body, None for one of unknown length; or how to answer it."""
        size_bytes = self.body_bytes_max if body_bytes is None else body_bytes
        if size_bytes > self.body_bytes_max:
            return publish.body_too_large(self.body_bytes_max)
        if size_bytes > self._room:
            return publish.no_room()
        self._change_room(-size_bytes)
        return BodyRoom(size_bytes, self._change_room)

    def submit(
        self,
        grant: Grant,
        request: PublishRequest,
        body: bytes,
        on_answer: OnAnswer,
        *,
        at_once: bool = False,
    ) -> None:
        """Have the event of a whole request committed; never waits. See `Publishing.submit`.

        `on_answer` may be called before this returns.
        """
        try:
            draft = publish.draft_of(grant, request, body)
        except Exception as error:  # noqa: BLE001 - one request's trouble is nobody else's
            draft = self._failed(error)
        if isinstance(draft, Answer):
            on_answer(draft)
        else:
            on_done = partial(self._on_done, on_answer)
            self._publishing.submit((draft,), on_done, at_once=at_once)

    def _on_done(self, on_answer: OnAnswer, outcome: Outcome) -> None:
        answer = publish.answer_to(outcome)
        if answer.status == 200:
            PUBLISHED.inc()
        on_answer(answer)

    def _failed(self, error: Exception) -> Answer:
        log.error("request failed", path=PATH, error=repr(error))
        return Answer(500, [], b"")

    def _change_room(self, by_bytes: int) -> None:
        self._room += by_bytes


@dataclass(slots=True, eq=False)
class BodyRoom:
    """Memory that one body may take."""

    size_bytes: int
    give_back: Callable[[int], None]

    def release(self) -> None:
        """Give it back; only the first time counts."""
        size_bytes, self.size_bytes = self.size_bytes, 0
        if size_bytes:
            self.give_back(size_bytes)
