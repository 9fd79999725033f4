"""Messages become events, by the mapping of their stream."""

import random

from noti.publishing.nats.mapping import StreamMapping
from noti.publishing.nats.ports import SourceMessage
from noti.stream_settings import SubjectSettings


def test_text_is_shown_as_it_is_with_its_subject_for_topic() -> None:
    mapping = StreamMapping((SubjectSettings(subject="news.>", decoder="text"),))
    message = SourceMessage(3, "news.sport", "né".encode(), {"nats-msg-id": ["n-1"]}, 17)
    event = mapping.event_of(message, wall_ms=18, rng=random.Random(1))
    assert (event.source_seq, event.id, event.topics) == (3, "n-1", ("news.sport",))
    assert (event.data, event.created_ms) == ("né", 17)
