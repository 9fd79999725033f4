"""Answers who is subscribed, on all nodes together (Mercure, "Active Subscriptions").

Each answer shows all that was committed before it was asked for, so it is the same at every node;
and streams that had begun by then, at whichever node.
What is at which path, and in which form, is decided in `active_subscriptions.py`.
"""

from http import HTTPStatus
from typing import Final

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Action, Dialect, Grant
from noti.authorization.presented import TOKEN_PARAMETER, Presented
from noti.authorization.rejection import Reason, TokenRejected
from noti.history.notification import Notification
from noti.history.selectors import ALL_TOPICS
from noti.history.subscriber import SUBSCRIPTIONS
from noti.http.active_subscriptions import (
    SingleSubscription,
    SubscriptionCollection,
    canonical,
    find,
    headers_of,
    is_current,
    segments_of,
)
from noti.http.answers import invalid, rejected
from noti.http.config import HttpConfig
from noti.http.forms import values_of
from noti.http.node_view import NodeView
from noti.http.quart_glue import header_of, hub_url_in, query_of, response_of
from noti.ports import Clock
from noti.presence.presence import Presence
from noti.streams.feed import Feed
from noti.streams.sse import EARLIEST

SUBSCRIBERS_A_TURN: Final = 500
"""Looked at before other tasks get a turn: 250,000 of them take a second."""
END_WITHIN_S: Final = 10.0
"""After this nobody believes in an answer (`PublishLimits.commit_within_s`)."""


class SubscriptionsApi:
    """The answers of one node."""

    def __init__(
        self,
        presence: Presence,
        feed: Feed,
        node: NodeView,
        authorizer: Authorizer,
        config: HttpConfig,
        clock: Clock,
    ) -> None:
        self._presence = presence
        self._feed = feed
        self._node = node
        self._authorizer = authorizer
        self._config = config
        self._clock = clock

    async def show(self, path: str) -> Response:
        """Return what is at `path`, which is as it stands in the target."""
        hub_url = hub_url_in(request, self._config)
        segments = segments_of(path) or []
        try:
            grant = self._grant(Action.SUBSCRIBE, hub_url, segments)
            dialect = grant.dialect or _spoken(segments)
            if not (grant.may_read_at(path) or grant.may_read_at(canonical(segments))):
                # Everybody may read public events; subscriptions are nobody's without a token.
                reason = Reason.MISSING if grant.dialect is None else Reason.INSUFFICIENT
                text = f"listing subscriptions at {path} needs a token that may subscribe to it"
                raise TokenRejected(reason, text, dialect)
        except TokenRejected as rejection:
            return response_of(rejected(rejection, hub_url))
        if not await self._caught_up():
            return _unavailable(dialect)
        table = self._presence.table
        found = None if segments_of(path) is None else find(segments, grant.dialect, table)
        if found is None:
            return _problem(dialect, "There is no such subscription.", HTTPStatus.NOT_FOUND)
        cursor = self._cursor(grant)
        headers = Headers(headers_of(found.version, cursor))
        if is_current(request.headers.get("If-None-Match", ""), found.version, cursor):
            return Response(b"", status=304, headers=headers)
        if isinstance(found, SingleSubscription):
            return Response(found.document(cursor), headers=headers)
        return Response(await self._document(found, cursor), headers=headers)

    async def end(self, path: str) -> Response:
        """End the stream of the subscription at `path`, at whichever node it is."""
        hub_url = hub_url_in(request, self._config)
        segments = segments_of(path) or []
        dialect = _spoken(segments)
        try:
            grant = self._grant(Action.PUBLISH, hub_url, segments)
            dialect = grant.dialect or dialect
            if ALL_TOPICS not in grant.publish:
                text = 'ending a stream needs a token that may publish to all topics ("*")'
                raise TokenRejected(Reason.INSUFFICIENT, text, dialect)
        except TokenRejected as rejection:
            return response_of(rejected(rejection, hub_url))
        if not await self._caught_up():
            return _unavailable(dialect)
        found = find(segments, grant.dialect, self._presence.table)
        if not isinstance(found, SingleSubscription):
            return _problem(dialect, "There is no such subscription.", HTTPStatus.NOT_FOUND)
        with trio.move_on_after(END_WITHIN_S) as limit:
            await self._presence.end(found.subscriber.id)
        return _unavailable(dialect) if limit.cancelled_caught else Response(b"", status=204)

    async def _document(self, collection: SubscriptionCollection, cursor: str) -> str:
        """Return a document of all that was in the table when this was called."""
        subscribers = list(self._presence.table.subscribers())
        shown: list[str] = []
        for begin in range(0, len(subscribers), SUBSCRIBERS_A_TURN):
            shown += collection.members_of(subscribers[begin : begin + SUBSCRIBERS_A_TURN])
            await trio.lowlevel.checkpoint()
        return collection.document(shown, cursor)

    async def _caught_up(self) -> bool:
        """Return whether this node has, within the time that a stream would wait, too.

        A client that was answered at one node may ask at another one at once, and expects to find
        itself: its own node first has to tell of it.
        """
        await self._clock.sleep_until(self._clock.now() + self._config.announced_within_s)
        with trio.move_on_after(self._config.catch_up_wait_s) as limit:
            await self._node.barrier()
        return not limit.cancelled_caught

    def _cursor(self, grant: Grant) -> str:
        """Return the name of the newest event, after which changes are told.

        The id of an event that this token does not show is not told; its place is.
        """
        newest = self._feed.retained.notifications.get(self._feed.newest_seq)
        if newest is None or self._feed.oldest_seq > self._feed.newest_seq:
            return EARLIEST
        id_ = newest.id
        told = id_.isascii() and id_.isprintable() and _sees(grant, newest)
        if told and self._feed.position_of(id_) == newest.seq:
            return id_
        return self._feed.retained.newest_cursor

    def _grant(self, action: Action, hub_url: str, segments: list[str]) -> Grant:
        presented = Presented.by(
            header_of(request),
            method=request.method,
            hub_url=hub_url,
            query_tokens=values_of(query_of(request), TOKEN_PARAMETER),
            dialect=_spoken(segments),
        )
        return self._authorizer.grant(presented, action, now=self._clock.wall_ms() / 1000)


def add_routes(app: QuartTrio, api: SubscriptionsApi) -> None:
    """Add the API's addresses, with all that is below them."""

    async def show(below: str = "") -> Response:
        return await api.show(_raw_path())

    async def end(below: str = "") -> Response:
        return await api.end(_raw_path())

    app.add_url_rule(SUBSCRIPTIONS, endpoint="subscriptions", view_func=show)
    # An encoded slash is one to the router: it must not tidy what it takes for empty segments.
    below = f"{SUBSCRIPTIONS}/<path:below>"
    options = {"merge_slashes": False, "strict_slashes": False}
    app.add_url_rule(below, endpoint="subscription", view_func=show, **options)
    app.add_url_rule(
        below, endpoint="end_subscription", view_func=end, methods=["DELETE"], **options
    )


def _raw_path() -> str:
    """Return the path of the request as it stood in the target, its bytes as characters."""
    raw: bytes = request.scope["raw_path"]
    return raw.partition(b"?")[0].decode("latin-1")


def _spoken(segments: list[str]) -> Dialect:
    """Return the dialect in which only 1.0 has a path, or 0.x."""
    return Dialect.V1 if len(segments) == 3 else Dialect.V0


def _sees(grant: Grant, notification: Notification) -> bool:
    return not notification.private or any(
        selector.matches(topic) for selector in grant.subscribe for topic in notification.topics
    )


def _problem(dialect: Dialect, text: str, status: HTTPStatus) -> Response:
    return response_of(invalid(dialect, text, status))


def _unavailable(dialect: Dialect) -> Response:
    response = _problem(
        dialect,
        "This node is not in touch with the others now. Ask again, or ask another one.",
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
    response.headers["Retry-After"] = "1"
    return response
