"""Promises of groups: whoever has something to get is known, and nobody else is looked at."""

from noti.streams.feed import Audience, Feed, View
from noti.streams.groups import Groups
from tests.http.stage import notification


def audience(topic: str) -> Audience:
    return Audience(View.MERCURE, frozenset({topic}))


def test_only_groups_with_news_lag_and_until_it_is_sent() -> None:
    feed = Feed()
    groups = Groups(feed)
    one, other = groups.enter(audience("a")), groups.enter(audience("b"))
    for group in groups.pass_on():
        groups.settle(group)
    feed.extend([notification(1, "a"), notification(2, "a")])
    assert groups.pass_on() == [one]
    assert (groups.cursor_of(one), groups.cursor_of(other)) == (0, 2)
    groups.settle(one)
    assert (groups.cursor_of(one), groups.pass_on()) == (2, [])


def test_group_lives_as_long_as_it_has_streams() -> None:
    feed = Feed()
    groups = Groups(feed)
    group = groups.enter(audience("a"))
    assert groups.enter(audience("a")) is group
    groups.leave(group)
    groups.leave(group)
    assert groups.pass_on() == []
    assert groups.enter(audience("a")) is not group
