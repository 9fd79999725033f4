"""Who is subscribed, and the document that tells of it in the dialect of the subscriber.

Enters: streams' selectors and payloads. Leaves: addresses and documents of subscriptions, in the
forms of Mercure 0.x and 1.0.
Never: state, I/O, clocks, chance.

The address of a subscription is the topic of what is told of it, the `id` in its document and where
the subscriptions API has it. Each variable in it is percent-encoded once (RFC 6570, 3.2.2).
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from noti.history.selectors import Selector, SelectorKind
from noti.history.topics import RESERVED

SUBSCRIPTIONS: Final = f"{RESERVED}/subscriptions"
"""Where the API has all of them."""

OWN_TYPE: Final = "mercure"
"""What 1.0 tells of subscriptions has this type; 0.x has none."""

CONTEXT: Final = "https://mercure.rocks/"

_MATCH_TYPES: Final = {
    SelectorKind.EXACT: "exact",
    SelectorKind.TEMPLATE: "exact",  # 1.0 has no templates: such a text is only itself
    SelectorKind.URL_PATTERN: "urlpattern",
    SelectorKind.ALL: "exact",  # the wildcard is one whatever its type
}
MATCH_TYPES: Final = frozenset(_MATCH_TYPES.values())
_PATHS: Final = {kind: f"{SUBSCRIPTIONS}/{name}" for kind, name in _MATCH_TYPES.items()}

_KNOWN_TEXTS: Final = 4096
"""Selectors whose form in addresses is remembered: most clients of an application use few."""

_text: Final = json.JSONEncoder(ensure_ascii=False).encode
"""`json.dumps` would make an encoder for every text."""


@dataclass(frozen=True, slots=True)
class ActiveSubscription:
    """One selector of one stream."""

    kind: SelectorKind
    text: str
    """As the client wrote it."""
    payload: str = ""
    """JSON that the subscriber's token attaches; empty for none."""

    @classmethod
    def to(cls, selector: Selector, payload: str = "") -> "ActiveSubscription":
        """Return that of a reader's selector."""
        return cls(selector.kind, selector.text, payload)


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One stream."""

    id: str
    """`urn:uuid:` and a random UUID, made by its node."""
    version: int
    """Of Mercure: 0 for 0.x, 1 for 1.0."""
    subscriptions: tuple[ActiveSubscription, ...]
    """Of its selectors, each once."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in log and table: its texts, and what carries them."""
        return OVERHEAD_BYTES + sum(
            OVERHEAD_BYTES + len(one.text) + len(one.payload) for one in self.subscriptions
        )


OVERHEAD_BYTES: Final = 100
"""What a subscriber, and each of its subscriptions, takes beside its texts."""


def match_type(subscription: ActiveSubscription) -> str:
    """Return the name that 1.0 has for how the selector matches."""
    return _MATCH_TYPES[subscription.kind]


def address(subscriber: Subscriber, subscription: ActiveSubscription) -> str:
    """Return where one subscription is."""
    path = SUBSCRIPTIONS if subscriber.version == 0 else _PATHS[subscription.kind]
    return f"{path}/{_encoded(subscription.text)}/{subscriber.id.replace(':', '%3A')}"


def document(
    subscriber: Subscriber,
    subscription: ActiveSubscription,
    *,
    active: bool,
    last_event_id: str = "",
) -> str:
    """Return what is told of one subscription: JSON, in the form of its dialect.

    With `last_event_id`, as the root of an answer of 0.x.
    """
    fields: list[str] = []
    if subscriber.version == 0:
        fields.append(f'"@context":{_text(CONTEXT)}')
    fields.append(members(subscriber, subscription, active=active))
    if last_event_id:
        fields.append(f'"lastEventID":{_text(last_event_id)}')
    return "{" + ",".join(fields) + "}"


def members(subscriber: Subscriber, subscription: ActiveSubscription, *, active: bool) -> str:
    """Return the members of a subscription's object, as they also stand in a collection."""
    own = f'"id":"{address(subscriber, subscription)}","type":'
    if subscriber.version == 0:
        own += f'"Subscription","topic":{_text(subscription.text)}'
    else:
        own += (
            f'"subscription","match":{_text(subscription.text)}'
            f',"match_type":"{match_type(subscription)}"'
        )
    own += f',"subscriber":"{subscriber.id}","active":{"true" if active else "false"}'
    if subscription.payload:
        own += f',"payload":{subscription.payload}'
    return own


def collection(
    version: int, path: str, subscriptions: list[str], *, last_event_id: str = ""
) -> str:
    """Return the document of a collection at `path`; `subscriptions` are made by `members`."""
    fields = [f'"@context":{_text(CONTEXT)}'] if version == 0 else []
    kind = "Subscriptions" if version == 0 else "subscriptions"
    fields.append(f'"id":{_text(path)},"type":"{kind}"')
    if last_event_id:
        fields.append(f'"lastEventID":{_text(last_event_id)}')
    fields.append(f'"subscriptions":[{",".join("{" + one + "}" for one in subscriptions)}]')
    return "{" + ",".join(fields) + "}"


@lru_cache(maxsize=_KNOWN_TEXTS)
def _encoded(text: str) -> str:
    return quote(text, safe="")
