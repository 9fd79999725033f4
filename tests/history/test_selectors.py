from noti.history.selectors import ALL_TOPICS, Selector, SelectorKind


def test_all_topics_are_not_the_topic_that_is_called_so() -> None:
    assert Selector(SelectorKind.EXACT, "*") != ALL_TOPICS
