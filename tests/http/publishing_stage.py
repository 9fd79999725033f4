"""Publishers for a front end: tokens, a log that commits what it is told to, and forms."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import trio

from noti.address import Address
from noti.authorization.grant import Action, Dialect, Grant
from noti.authorization.presented import Presented
from noti.authorization.rejection import Reason, TokenRejected
from noti.completion import OnDone
from noti.errors import NotiError
from noti.history.selectors import ALL_TOPICS, Selector, SelectorKind
from noti.http.config import HttpConfig
from noti.http.forms import FORM
from noti.http.publish_endpoint import PublishEndpoint
from noti.http.server import Frontend
from noti.publishing.ports import Draft
from noti.streams.hub import Hub
from tests.http.stage import Node, hub
from tests.http.tls_stage import tls_in_use

PATH = "/.well-known/mercure"


def grant(dialect: Dialect, *topics: str) -> Grant:
    exact = frozenset(Selector(SelectorKind.EXACT, topic) for topic in topics)
    return Grant(dialect, publish=exact or frozenset({ALL_TOPICS}))


GRANTS = {
    "old": grant(Dialect.V0),
    "new": grant(Dialect.V1),
    "old-a": grant(Dialect.V0, "a"),
    "new-a": grant(Dialect.V1, "a"),
}
"""What each token allows: everything or the topic `a`, in the old dialect or the new."""


class Publishers:
    """Knows these tokens and no other; a `PublishAuthorizer`."""

    generation = 1

    def holds(self, grant: Grant, generation: int, now: float) -> bool:
        return generation == self.generation

    def grant(self, presented: Presented, action: Action, *, now: float) -> Grant:
        assert action is Action.PUBLISH
        token = (presented.authorization or "").removeprefix("Bearer ")
        if not token:
            raise TokenRejected(Reason.MISSING, "publishing needs a token", Dialect.V0)
        if token not in GRANTS:
            raise TokenRejected(Reason.INVALID, "the token is bad", Dialect.V0)
        return GRANTS[token]


@dataclass
class Log:
    """A `Publishing` that commits at once, or when it is told to."""

    held: bool = False
    failure: NotiError | None = None
    drafts: list[Draft] = field(default_factory=list)
    waiting: list[tuple[Draft, OnDone[tuple[str, ...]]]] = field(default_factory=list)
    at_once: list[bool] = field(default_factory=list)

    def submit(
        self, drafts: Sequence[Draft], on_done: OnDone[tuple[str, ...]], *, at_once: bool = False
    ) -> None:
        [draft] = drafts
        self.drafts.append(draft)
        self.waiting.append((draft, on_done))
        self.at_once.append(at_once)
        if not self.held:
            self.commit()

    def commit(self, count: int | None = None, *, last_first: bool = False) -> None:
        """Answer some of those that wait, or all."""
        done = self.waiting[:count]
        del self.waiting[:count]
        for draft, on_done in reversed(done) if last_first else done:
            on_done(self.failure or (draft.id or "made-here",))


def form(*fields: tuple[str, str], **more: str) -> bytes:
    return urlencode([*fields, *more.items()]).encode()


def post(
    body: bytes = b"topic=a&data=hello&id=1",
    token: str = "old",
    *headers: str,
    content_type: str = FORM,
    length: int | None = None,
) -> bytes:
    """Return a whole request."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Type: {content_type}"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def publishing(
    log: Log, config: HttpConfig | None = None, there: Hub | None = None
) -> AsyncIterator[Address]:
    """Serve HTTP whose events go to `log`."""
    config = config or HttpConfig()
    endpoint = PublishEndpoint(log, Publishers(), config)
    frontend = Frontend(
        ("127.0.0.1", 0),
        hub() if there is None else there,
        Node(),
        config,
        endpoint=endpoint,
        tls=tls_in_use(),
    )
    async with trio.open_nursery() as nursery:
        address = await nursery.start(frontend.run)
        yield address
        nursery.cancel_scope.cancel()
