"""Reads a publisher's `category.v1.CategoryMessage`, without tolerance.

A payload does not parse when it is

- empty, or holds none of the fields that we know (a client that sends another type by mistake);
- cut off, or not protobuf on the wire;
- a known field with a wire type that is not its own;
- text that is not UTF-8;
- a time before 1970 or after 9999.

A message without `created_at` is fine: it is given the time at which the leader read it.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Final

from noti.errors import MessageInvalid
from noti.protobuf import parse
from noti.publishing.nats.content import MessageContent
from noti.publishing.nats.ports import SourceMessage
from noti.rpc.generated.category.v1 import CategoryMessage

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def decode_category(message: SourceMessage, wall_ms: int) -> MessageContent:
    """Return the content of `message`; raises `MessageInvalid`."""
    category = parse(CategoryMessage, message.payload)
    if category == CategoryMessage():
        raise MessageInvalid("CategoryMessage: no known field is set")
    created = _EPOCH + timedelta(milliseconds=wall_ms)
    if category.created_at is not None:
        created = category.created_at.astimezone(UTC)
    created_ms = (created - _EPOCH) // timedelta(milliseconds=1)
    if created_ms < 0:
        raise MessageInvalid(f"CategoryMessage: created_at {created.isoformat()} is before 1970")
    fields = {
        "user_id": category.user_id,
        "category_from": category.category_from,
        "category_to": category.category_to,
        "created_at": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    data = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return MessageContent(data, fields, created_ms=created_ms)
