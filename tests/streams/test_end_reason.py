"""Promises of the reasons for which streams end."""

from noti.streams.end_reason import EndReason


def test_each_reason_has_a_word_of_its_own_for_metrics_and_logs() -> None:
    words = [reason.value for reason in EndReason]
    assert len(set(words)) == len(words)
    assert all(word.isidentifier() for word in words)
