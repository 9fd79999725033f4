"""Turns a publisher's `category.v1.CategoryMessage` into an event.

Wall time and a generator are handed in, for what the publisher left out. There is no tolerance:
what does not parse now does not parse on any later delivery either, and is `MessageInvalid`.

A payload does not parse when it is

- empty, or holds none of the fields that we know (a client that sends another type by mistake);
- cut off, or not protobuf on the wire;
- a known field with a wire type that is not its own;
- text that is not UTF-8;
- a time before 1970 or after 9999, or too large to be replicated (`EVENT_BYTES_MAX`);
- on a subject that no reader can name, or that is reserved (see `noti.history.topics`).

A message without `created_at` is fine: it is given the time at which the leader read it.
"""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Final

from noti.errors import MessageInvalid
from noti.history.notification import Event
from noti.protobuf import parse
from noti.publishing.events import check_data, check_topics, is_event_id, make_id
from noti.publishing.nats.ports import SourceMessage
from noti.rpc.generated.category.v1 import CategoryMessage

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def decode_category(message: SourceMessage, *, wall_ms: int, rng: random.Random) -> Event:
    """Return the event in `message`; raises `MessageInvalid`.

    The event's id is the publisher's, if it is one that a header can carry; otherwise a UUIDv7 made
    of `wall_ms` and `rng`. It is made once, by the leader, and replicated.
    """
    category = parse(CategoryMessage, message.payload)
    if category == CategoryMessage():
        raise MessageInvalid("CategoryMessage: no known field is set")
    created = _EPOCH + timedelta(milliseconds=wall_ms)
    if category.created_at is not None:
        created = category.created_at.astimezone(UTC)
    created_ms = (created - _EPOCH) // timedelta(milliseconds=1)
    if created_ms < 0:
        raise MessageInvalid(f"CategoryMessage: created_at {created.isoformat()} is before 1970")
    data = json.dumps(
        {
            "user_id": category.user_id,
            "category_from": category.category_from,
            "category_to": category.category_to,
            "created_at": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
    message_id = message.headers.get("nats-msg-id", ("",))[0]
    check_topics([message.subject])
    check_data(data)
    return Event(
        source_seq=message.seq,
        id=message_id if is_event_id(message_id) else make_id(wall_ms, rng),
        topics=(message.subject,),
        data=data,
        created_ms=created_ms,
    )
