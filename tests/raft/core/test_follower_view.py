"""What a follower and its leader know about each other."""

from noti.raft.core.follower_view import Following


def confirm(following: Following, durable: int) -> tuple[int, int]:
    """What the leader is told: up to where it may count on us, and its round."""
    answer = following.confirmation("n1", 3, durable)
    assert (answer.sender, answer.term) == ("n1", 3)
    return answer.match_index, answer.round


def test_leader_may_count_on_what_equals_its_log_and_is_on_disk() -> None:
    following = Following(0.0)
    following.matched = 7
    assert confirm(following, durable=5) == (5, 0)
    assert confirm(following, durable=9) == (7, 0)


def test_late_request_takes_no_round_back() -> None:
    """A reader would have to wait for the next heartbeat."""
    following = Following(0.0)
    following.requested(commit=3, round_=4, now=1.0)
    following.requested(commit=2, round_=3, now=2.0)
    assert confirm(following, durable=0) == (0, 4)


def test_what_the_leader_was_told_is_no_news_until_there_is_more_or_the_stream_is_new() -> None:
    following = Following(0.0)
    assert following.has_news(durable=0), "it was told nothing yet"
    following.matched = 7
    confirm(following, durable=5)
    assert not following.has_news(durable=5)
    assert following.has_news(durable=6)
    following.requested(commit=0, round_=1, now=1.0)
    assert following.has_news(durable=5)
    confirm(following, durable=5)
    assert not following.has_news(durable=5)
    following.stream_is_new()
    assert following.has_news(durable=5)
