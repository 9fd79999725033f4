"""Promises of the topic selectors."""

from noti.notifications.topics import matches


def test_the_star_covers_every_notification() -> None:
    assert matches("*", ("jobs.noti.1",))


def test_a_selector_covers_an_equal_topic_wherever_it_stands() -> None:
    assert matches("b", ("a", "b"))


def test_a_selector_covers_nothing_that_only_looks_alike() -> None:
    assert not matches("jobs.noti", ("jobs.noti.1", "Jobs.noti", "xjobs.noti"))
    assert not matches("jobs.*", ("jobs.noti",))
