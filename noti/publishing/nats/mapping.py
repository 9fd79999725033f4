"""Turns messages of one stream into events, by their subjects.

Wall time and a generator are handed in, for what the publisher left out.
"""

import random
from collections.abc import Sequence

from noti.errors import MessageInvalid
from noti.history.notification import Event
from noti.publishing.events import check_data, check_topics, is_event_id, make_id
from noti.publishing.nats.category import decode_category
from noti.publishing.nats.ports import SourceMessage
from noti.stream_settings import SubjectSettings


class StreamMapping:
    """Of one stream."""

    def __init__(self, subjects: Sequence[SubjectSettings]) -> None:
        """Prepare; raises `ConfigInvalid` for what cannot be used."""
        self._subjects = tuple(subjects)

    def event_of(self, message: SourceMessage, *, wall_ms: int, rng: random.Random) -> Event:
        """Return the event in `message`; raises `MessageInvalid`."""
        if self._subjects[0].decoder == "category":
            return decode_category(message, wall_ms=wall_ms, rng=rng)
        try:
            data = message.payload.decode()
        except UnicodeDecodeError:
            raise MessageInvalid("the payload is no UTF-8 text") from None
        check_topics([message.subject])
        check_data(data)
        message_id = message.headers.get("nats-msg-id", ("",))[0]
        return Event(
            source_seq=message.seq,
            id=message_id if is_event_id(message_id) else make_id(wall_ms, rng),
            topics=(message.subject,),
            data=data,
            created_ms=message.published_ms or wall_ms,
        )
