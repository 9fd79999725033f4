"""Headers say more than the payload, or what is wrong with them."""

import pytest

from noti.errors import MessageInvalid, TooLarge
from noti.history.subscriber import OWN_TYPE
from noti.publishing.events import RETRY_MS_MAX
from noti.publishing.nats.message_headers import NO_DIRECTIVES, Directives, directives_of


def test_headers_say_topics_type_privacy_time_to_retry_and_trace() -> None:
    headers = {
        "noti-topic": ["b", "a"],
        "noti-type": ["price"],
        "noti-private": ["on"],
        "noti-retry": ["3000"],
        "traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    }
    trace = headers["traceparent"][0]
    assert directives_of(headers) == Directives(("b", "a"), "price", True, 3000, trace)
    assert directives_of({"traceparent": ["wrong"]}) == NO_DIRECTIVES
    assert directives_of({"other": ["x"]}) == NO_DIRECTIVES


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("ON", True), ("1", True), ("false", False), ("off", False), ("0", False)],
)
def test_private_is_yes_or_no(value: str, expected: bool) -> None:
    assert directives_of({"noti-private": [value]}).private is expected


def test_empty_type_is_none() -> None:
    assert directives_of({"noti-type": [""]}).type == ""


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"noti-topic": [""]}, "a topic is empty"),
        ({"noti-topic": ["a", "*"]}, "no topic"),
        ({"noti-topic": ["/.well-known/mercure/subscriptions"]}, "reserved"),
        ({"noti-topic": ["a\x00"]}, "control character"),
        ({"noti-topic": ["a\udcff"]}, "surrogate"),
        ({"noti-type": ["a\n"]}, "type"),
        ({"noti-type": ["x" * 129]}, "129 characters"),
        ({"noti-type": [OWN_TYPE]}, "hub's own"),
        ({"noti-type": ["a", "b"]}, "Noti-Type stands there 2 times"),
        ({"noti-private": ["yes"]}, "write true or false"),
        ({"noti-private": [""]}, "write true or false"),
        ({"noti-private": ["true", "false"]}, "2 times"),
        ({"noti-retry": ["-1"]}, "Noti-Retry is '-1'"),
        ({"noti-retry": ["1.5"]}, "write 0 to"),
        ({"noti-retry": ["٣"]}, "write 0 to"),
        ({"noti-retry": [str(RETRY_MS_MAX + 1)]}, "write 0 to"),
        ({"noti-retry": ["9" * 10_000]}, "write 0 to"),
        ({"noti-retry": [""]}, "write 0 to"),
    ],
)
def test_header_that_says_nothing_usable_is_invalid(
    headers: dict[str, list[str]], problem: str
) -> None:
    with pytest.raises(MessageInvalid, match=problem) as caught:
        directives_of(headers)
    assert len(str(caught.value)) < 300


def test_too_many_topics_are_too_large() -> None:
    with pytest.raises(TooLarge, match="1001 times"):
        directives_of({"noti-topic": ["a"] * 1001})
