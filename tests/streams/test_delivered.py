"""Promises of the count of streams that an event was handed to."""

import pytest

from noti.history.selectors import ALL_TOPICS, topic_selector
from noti.streams.feed import Audience, Feed, View
from tests.http.stage import notification, notifications
from tests.streams.test_feed import ALL, read


def test_streams_that_were_handed_an_event_are_counted() -> None:
    feed, selector = Feed(), topic_selector("a")
    topic = Audience(View.MERCURE, frozenset({selector}))
    category = Audience(View.CATEGORY, frozenset({ALL_TOPICS}))
    feed.extend([notification(1)._replace(topics=("a",), data="no category"), notification(2)])
    read(feed, ALL, 0).delivered.streams += 20
    read(feed, ALL, 1).delivered.streams += 5
    read(feed, ALL, 0, bytes_max=1).delivered.streams += 1
    read(feed, topic, 0).delivered.streams += 3
    read(feed, category, 0).delivered.streams += 7
    assert feed.delivered.streams_of(1) == (24, True)
    assert feed.delivered.streams_of(2) == (32, True)
    assert feed.delivered.streams_of(3) == (0, True)


def test_streams_of_long_ago_are_not_known_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noti.streams.delivered.EVENTS_MAX", 3)
    feed = Feed()
    feed.extend(notifications(1, 4))
    read(feed, ALL, 2).delivered.streams += 2
    assert feed.delivered.streams_of(3) == (2, True)
    read(feed, ALL, 1).delivered.streams += 1
    assert feed.delivered.streams_of(4) == (1, False)
    assert feed.delivered.streams_of(5) == (0, True)
