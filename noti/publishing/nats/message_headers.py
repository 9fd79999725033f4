"""Headers of a message that say more about the event than its payload, and win over it.

| header | value |
|---|---|
| `Nats-Msg-Id` | the event's id, if it can be one |
| `Noti-Topic` | a topic; repeated, in their order |
| `Noti-Type` | the event's type; empty for none |
| `Noti-Private` | `true`, `on` or `1`; `false`, `off` or `0` |
| `Noti-Retry` | how long a reader waits before it connects again, ms |

| `traceparent` | the trace that the event belongs to (W3C Trace Context); a wrong one is none |

Their names are in lower case here. What else a message has is passed over.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from noti.errors import MessageInvalid, TooLarge
from noti.history.traceparent import trace_of
from noti.publishing.events import RETRY_MS_MAX, TOPICS_MAX, check_topics, check_type
from noti.publishing.nats.ports import Headers

MESSAGE_ID: Final = "nats-msg-id"
_TRACEPARENT: Final = "traceparent"

_TOPIC: Final = "noti-topic"
_TYPE: Final = "noti-type"
_PRIVATE: Final = "noti-private"
_RETRY: Final = "noti-retry"

DIRECTIVES: Final = frozenset({_TOPIC, _TYPE, _PRIVATE, _RETRY, _TRACEPARENT})
"""What `directives_of` reads."""

_YES_OR_NO: Final[Mapping[str, bool]] = {
    "true": True,
    "on": True,
    "1": True,
    "false": False,
    "off": False,
    "0": False,
}
_MILLISECONDS: Final = re.compile(r"[0-9]{1,10}")


class Directives(NamedTuple):
    """What a publisher says about an event beside its payload."""

    topics: tuple[str, ...]
    """Checked; empty when it names none."""
    type: str | None
    """None when it says nothing."""
    private: bool
    retry_ms: int
    trace: str
    """Empty for none."""


NO_DIRECTIVES: Final = Directives((), None, False, 0, "")


def directives_of(headers: Headers) -> Directives:
    """Return what the headers say; raises `MessageInvalid`."""
    topics = tuple(headers.get(_TOPIC, ()))
    if len(topics) > TOPICS_MAX:
        raise TooLarge(f"Noti-Topic stands there {len(topics)} times; {TOPICS_MAX} are allowed")
    check_topics(topics)
    event_type = _single(headers, _TYPE)
    if event_type:
        check_type(event_type)
    private = _single(headers, _PRIVATE)
    if private is not None and private.lower() not in _YES_OR_NO:
        raise MessageInvalid(f"Noti-Private is {private[:80]!r}; write true or false")
    retry = _single(headers, _RETRY)
    retry_ms = int(retry) if retry is not None and _MILLISECONDS.fullmatch(retry) else 0
    if retry is not None and (retry_ms > RETRY_MS_MAX or not _MILLISECONDS.fullmatch(retry)):
        raise MessageInvalid(f"Noti-Retry is {retry[:80]!r}; write 0 to {RETRY_MS_MAX} ms")
    is_private = private is not None and _YES_OR_NO[private.lower()]
    trace = trace_of(headers[_TRACEPARENT][0]) if _TRACEPARENT in headers else ""
    return Directives(topics, event_type, is_private, retry_ms, trace)


def _single(headers: Headers, name: str) -> str | None:
    """Return the value of a header; two that differ would leave the choice to us."""
    values = headers.get(name, ())
    if len(set(values)) > 1:
        raise MessageInvalid(f"{name.title()} stands there {len(values)} times; give it once")
    return values[0] if values else None
