"""Turns messages of one stream into events, by their subjects.

Wall time and a generator are handed in, for what the publisher left out. What does not parse now
does not parse on any later delivery either, and is `MessageInvalid`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from noti.errors import ConfigInvalid, MessageInvalid, TooLarge
from noti.history.notification import Event
from noti.publishing.events import (
    EVENT_BYTES_MAX,
    check_data,
    check_topics,
    check_type,
    is_event_id,
    make_id,
)
from noti.publishing.nats.content import Decode
from noti.publishing.nats.decoders import decoder_of
from noti.publishing.nats.message_headers import (
    DIRECTIVES,
    MESSAGE_ID,
    NO_DIRECTIVES,
    directives_of,
)
from noti.publishing.nats.ports import SourceMessage
from noti.publishing.nats.topic_template import BoundTopic, TopicTemplate
from noti.stream_settings import StreamSettings, SubjectSettings, subject_covers

PAYLOAD_BYTES_MAX: Final = 4 * EVENT_BYTES_MAX
"""More is not decoded, as that would hold everything else up; escapes in the JSON of a CloudEvent
can make it so much longer than its data."""

SUBJECTS_KNOWN_MAX: Final = 4096
"""Subjects whose way is remembered, so that only the first message of each is compared with
patterns: with those that follow, 1 MB. When there are more, all are forgotten."""

SUBJECT_KNOWN_CHARACTERS_MAX: Final = 255
"""Longer subjects are compared each time."""


@dataclass(frozen=True, slots=True)
class _Way:
    """How messages of one subject become events."""

    decode: Decode
    topics: tuple[str, ...]
    """What all their topics are, checked; empty where that depends on the payload."""
    bound: BoundTopic | None
    """Of a template; without one, the topic is the payload's, or the subject."""


class StreamMapping:
    """Of one stream."""

    def __init__(self, subjects: Sequence[SubjectSettings]) -> None:
        """Read templates, and what decoders need; raises `ConfigInvalid`."""
        self._rules = [(one.subject, *_rule(one)) for one in subjects]
        self._ways: dict[str, _Way] = {}

    def event_of(self, message: SourceMessage, *, wall_ms: int, rng: random.Random) -> Event:
        """Return the event in `message`; raises `MessageInvalid`.

        Its id is that of `Nats-Msg-Id`, or else of the payload, if it is one that a header can
        carry; otherwise a UUIDv7 made of `wall_ms` and `rng`. It is made once, by the leader, and
        replicated.
        """
        seq, subject, payload, headers, published_ms, _ = message
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise TooLarge(f"a payload of {len(payload)} bytes; {PAYLOAD_BYTES_MAX} are allowed")
        way = self._ways.get(subject) or self._way_of(subject)
        content = way.decode(message, wall_ms)
        data, fields, event_id, event_type, topic, created_ms = content
        told = NO_DIRECTIVES
        if headers:
            ids = headers.get(MESSAGE_ID)
            if ids is not None and is_event_id(ids[0]):
                event_id = ids[0]
            if (ids is None or len(headers) > 1) and not DIRECTIVES.isdisjoint(headers):
                told = directives_of(headers)
        check_data(data)
        if told.type is not None:
            event_type = told.type
        elif event_type:
            check_type(event_type)
        topics = told.topics or way.topics
        if not topics:
            topics = (topic or subject if way.bound is None else way.bound.topic(fields),)
            check_topics(topics)
        # Made as a tuple is: the call that names fields takes three times as long.
        return tuple.__new__(
            Event,
            (
                seq,
                event_id if event_id and is_event_id(event_id) else make_id(wall_ms, rng),
                topics,
                data,
                (published_ms or wall_ms) if created_ms is None else created_ms,
                event_type,
                told.retry_ms,
                told.private,
                "",
                told.trace,
            ),
        )

    def _way_of(self, subject: str) -> _Way:
        for pattern, decode, template, may_name_topic in self._rules:
            if subject_covers(pattern, subject):
                way = _way(subject, decode, template, may_name_topic)
                break
        else:
            raise MessageInvalid(f"subject {subject[:80]!r} is none that is read")
        if len(subject) <= SUBJECT_KNOWN_CHARACTERS_MAX:
            if len(self._ways) >= SUBJECTS_KNOWN_MAX:
                self._ways.clear()
            self._ways[subject] = way
        return way


def mapping_of(stream: StreamSettings) -> StreamMapping:
    """Return the mapping of a stream; raises `ConfigInvalid`, which names it."""
    try:
        return StreamMapping(stream.subjects)
    except ConfigInvalid as error:
        raise ConfigInvalid(f"stream {stream.name}, {error}") from None


def _rule(one: SubjectSettings) -> tuple[Decode, TopicTemplate | None, bool]:
    """Return decoder, template, and whether a payload may name the topic."""
    where = f"subject {one.subject}"
    template = None
    if one.topic is not None:
        try:
            template = TopicTemplate(one.topic)
        except ValueError as error:
            raise ConfigInvalid(f"{where}: topic {one.topic[:80]!r} {error}") from None
        try:
            check_topics((template.sample,))
        except MessageInvalid as error:
            raise ConfigInvalid(
                f"{where}: topic {one.topic[:80]!r} cannot be one: {error}"
            ) from None
        tokens = one.subject.split(".")
        if tokens[-1] != ">" and template.tokens_min > len(tokens):
            raise ConfigInvalid(
                f"{where}: topic {one.topic!r} has {{{template.tokens_min}}}, and the subject has"
                f" {len(tokens)} tokens; {{1}} is the first"
            )
        if template.needs_fields and one.decoder == "text":
            raise ConfigInvalid(
                f"{where}: topic {one.topic!r} has fields, and text has none; use another decoder"
            )
    needs_fields = template is not None and template.needs_fields
    try:
        decode = decoder_of(one, needs_fields=needs_fields)
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{where}: {error}") from None
    return decode, template, one.decoder == "cloudevents"


def _way(
    subject: str, decode: Decode, template: TopicTemplate | None, may_name_topic: bool
) -> _Way:
    bound = None if template is None else template.bind(subject)
    if may_name_topic and bound is None:
        return _Way(decode, (), None)
    if template is not None and template.needs_fields:
        return _Way(decode, (), bound)
    topics = (subject if bound is None else bound.topic(None),)
    try:
        check_topics(topics)
    except MessageInvalid:
        return _Way(decode, (), bound)  # headers may name another
    return _Way(decode, topics, bound)
