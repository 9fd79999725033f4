"""Says what the subscriptions API has at a path, and how it is told, in the dialect's form.

Enters: paths as requests have them; the replicated table; cursors. Leaves: subscriptions, headers,
documents.
Never: I/O, the rights of who asks; a path that was decoded before it was cut.

Mercure 0.x has `/subscriptions/{topic}/{subscriber}`, 1.0 `/{match_type}/{match}/{subscriber}`, and
both the collections above them. A subscriber is known in the dialect of its request, so that an
address is the topic of what was told of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from noti.authorization.grant import Dialect
from noti.history.subscriber import (
    MATCH_TYPES,
    SUBSCRIPTIONS,
    ActiveSubscription,
    Subscriber,
    address,
    collection,
    document,
    match_type,
    members,
)
from noti.history.subscriptions import SubscriptionTable
from noti.history.topics import RESERVED
from noti.http.heads import Headers

JSON: Final = "application/json"
CONTENT_TYPES: Final = {0: "application/ld+json", 1: JSON}
"""By the version of Mercure."""


@dataclass(frozen=True, slots=True)
class SingleSubscription:
    """One subscription."""

    subscriber: Subscriber
    subscription: ActiveSubscription

    @property
    def version(self) -> int:
        """In whose form it is told."""
        return self.subscriber.version

    def document(self, last_event_id: str) -> str:
        """Return its document as the root of an answer."""
        cursor = last_event_id if self.version == 0 else ""
        return document(self.subscriber, self.subscription, active=True, last_event_id=cursor)


@dataclass(frozen=True, slots=True)
class SubscriptionCollection:
    """The subscriptions of a dialect, or those of one topic or matcher."""

    version: int
    path: str
    """In canonical form."""
    match_type: str | None = None
    """Of those that are in it (1.0)."""
    text: str | None = None
    """The topic or matcher of those that are in it; None for all."""

    def members_of(self, subscribers: Iterable[Subscriber]) -> Iterator[str]:
        """Yield what stands in the document for each subscription that is in it."""
        for subscriber in subscribers:
            if subscriber.version == self.version:
                for one in subscriber.subscriptions:
                    if self.text is None or (
                        one.text == self.text and self.match_type in (None, match_type(one))
                    ):
                        yield members(subscriber, one, active=True)

    def document(self, subscriptions: list[str], last_event_id: str) -> str:
        """Return the document of the collection with these `members_of` it."""
        cursor = last_event_id if self.version == 0 else ""
        return collection(self.version, self.path, subscriptions, last_event_id=cursor)


def segments_of(path: str) -> list[str] | None:
    """Return the decoded segments below the API's address; None when there are none such.

    `path` is as it stands in the target, its bytes as characters. A slash in a topic is `%2F` there
    and separates nothing.
    """
    if path == SUBSCRIPTIONS:
        return []
    if not path.startswith(SUBSCRIPTIONS + "/"):
        return None
    try:
        below = path[len(SUBSCRIPTIONS) + 1 :].encode("latin-1").split(b"/")
        return [unquote_to_bytes(segment).decode() for segment in below]
    except UnicodeError:
        return None


def canonical(segments: Iterable[str]) -> str:
    """Return the path of these segments, each percent-encoded once."""
    return "/".join([SUBSCRIPTIONS, *(quote(segment, safe="") for segment in segments)])


def find(
    segments: list[str], dialect: Dialect | None, table: SubscriptionTable
) -> SingleSubscription | SubscriptionCollection | None:
    """Return what is at a path; None for nothing. `dialect` is that of who asks."""
    version = 1 if dialect is Dialect.V1 else 0
    match segments:
        case []:
            return SubscriptionCollection(version, SUBSCRIPTIONS)
        case [topic] if version == 0:
            return SubscriptionCollection(0, canonical(segments), text=topic)
        case [*_, last] if (item := _item(segments, table.find(last))) is not None:
            return item
        case [kind, matcher] if version == 1 and kind in MATCH_TYPES:
            return SubscriptionCollection(1, canonical(segments), kind, matcher)
        case _:
            return None


def _item(segments: list[str], subscriber: Subscriber | None) -> SingleSubscription | None:
    if subscriber is not None:
        path = canonical(segments)
        for subscription in subscriber.subscriptions:
            if address(subscriber, subscription) == path:
                return SingleSubscription(subscriber, subscription)
    return None


def headers_of(version: int, last_event_id: str) -> Headers:
    """Return the headers of an answer: its type, and from where on events tell of changes.

    `last_event_id` is printable ASCII.
    """
    headers = [
        ("Content-Type", CONTENT_TYPES[version]),
        ("ETag", etag(version, last_event_id)),
        ("Cache-Control", "private, no-cache"),
        ("Vary", "Authorization, Cookie"),
    ]
    if version == 1:
        quoted = last_event_id.replace("\\", "\\\\").replace('"', '\\"')
        headers.append(
            (
                "Link",
                f'<{RESERVED}>; rel="mercure"; last-event-id="{quoted}"; type="mercure"; '
                f'content-type="{JSON}"',
            )
        )
    return headers


def etag(version: int, last_event_id: str) -> str:
    """Return the ETag: the cursor itself in 0.x, and in 1.0 quoted, as HTTP has it."""
    # A quote may stand in an id, and not in an ETag (RFC 9110, 8.8.3).
    return last_event_id if version == 0 else f'"{quote(last_event_id, safe=_ETAG_CHARACTERS)}"'


_ETAG_CHARACTERS: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def is_current(if_none_match: str, version: int, last_event_id: str) -> bool:
    """Return whether a client that sends this If-None-Match has the answer already."""
    current = etag(version, last_event_id)
    tags = [if_none_match, *if_none_match.split(",")]
    return any(tag.strip().removeprefix("W/").strip('"') == current.strip('"') for tag in tags) or (
        if_none_match.strip() == "*"
    )
