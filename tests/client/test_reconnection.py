"""What a follower decides, without any connection."""

from random import Random

import pytest

from noti.client.reconnection import (
    EVENT_STREAM,
    REDIRECTS_MAX,
    GiveUp,
    Move,
    Open,
    Reconnect,
    Reconnection,
    Stop,
)

URL = "https://example.org/events?topic=a"
STREAM = {"content-type": "text/event-stream"}


def reconnection(last_event_id: str = "") -> Reconnection:
    return Reconnection(URL, Random(1), last_event_id)


def test_a_stream_is_resumed_from_its_last_id() -> None:
    one = reconnection()
    assert "Last-Event-ID" not in dict(one.request_headers())
    assert one.answered(200, STREAM) == Open(None)
    one.feed(b"id: 7\ndata: x\n\nid: 8\ndata: cut")
    one.ended("gone")
    assert dict(one.request_headers())["Last-Event-ID"] == "7"
    assert one.answered(200, STREAM | {"last-event-id": "7"}) == Open("7")
    one.feed(b"data: no id of its own\n\n")
    assert one.last_event_id == "7"


def test_it_begins_after_the_id_it_is_given() -> None:
    assert dict(reconnection("earliest").request_headers())["Last-Event-ID"] == "earliest"


def test_no_content_is_the_end() -> None:
    assert reconnection().answered(204, {}) == Stop()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_trouble_that_passes_is_waited_for(status: int) -> None:
    step = reconnection().answered(status, {"retry-after": "7"})
    assert isinstance(step, Reconnect)
    assert 8.75 <= step.after_s <= 10.5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 505, 304])
def test_trouble_that_stays_is_reported(status: int) -> None:
    assert reconnection().answered(status, {}) == GiveUp(f"it answers with status {status}")


@pytest.mark.parametrize(
    ("media_type", "is_stream"),
    [
        ("text/event-stream; charset=utf-8", True),
        ("Text/Event-Stream", True),
        ("text/html", False),
        ("", False),
    ],
)
def test_only_an_event_stream_is_read(media_type: str, is_stream: bool) -> None:
    step = reconnection().answered(200, {"content-type": media_type})
    assert isinstance(step, Open if is_stream else GiveUp)


def test_another_server_is_passed_over_until_all_are_such_in_a_row() -> None:
    page = {"content-type": "text/html"}
    one = Reconnection(["http://a", "http://b"], Random(1))
    assert one.answered(200, page) == Reconnect(
        0.0, f"it answers with text/html, not {EVENT_STREAM}"
    )
    assert one.url == "http://b"
    assert isinstance(one.ended("it is down"), Reconnect)
    assert isinstance(one.answered(404, {}), Reconnect), "the other one may come back"
    assert one.answered(404, {}) == GiveUp("it answers with status 404")
    assert isinstance(Reconnection(["http://a", "http://b"], Random(1)).answered(401, {}), GiveUp)


def test_the_servers_delay_is_obeyed_with_jitter_and_never_undercut() -> None:
    one = reconnection()
    one.answered(200, STREAM)
    one.feed(b"retry: 4000\n\n")
    delays = [_delay(one) for _ in range(1)]
    for _ in range(50):
        one.answered(200, STREAM)
        one.feed(b": ok\n")
        delays.append(_delay(one))
    assert all(4 <= delay <= 6 for delay in delays)
    assert len(set(delays)) > 40


def test_failures_in_a_row_wait_longer_up_to_a_limit_and_a_byte_resets_them() -> None:
    one = reconnection()
    delays = [_delay(one) for _ in range(40)]
    for attempt, delay in enumerate(delays):
        longest = min(2**attempt / 2, 30)
        assert 1 + longest / 2 <= delay <= 1 + longest, attempt
    one.answered(200, STREAM)
    one.feed(b":\n")
    assert _delay(one) <= 1.5


def test_a_delay_beyond_our_limit_is_the_servers_right() -> None:
    one = reconnection()
    one.answered(200, STREAM)
    one.feed(b"retry: 100000\n\n")
    assert _delay(one) >= 100


def _delay(one: Reconnection) -> float:
    return one.ended("gone").after_s


def test_a_redirect_is_followed_and_only_a_permanent_one_is_kept() -> None:
    one = reconnection()
    assert one.answered(307, {"location": "/b"}) == Move("https://example.org/b")
    one.ended("gone")
    assert one.url == URL
    assert one.answered(308, {"location": "https://b.org/c"}) == Move("https://b.org/c")
    assert not one.at_home
    one.ended("gone")
    assert one.url == "https://b.org/c"


@pytest.mark.parametrize("location", ["http://example.org/", "file:///etc/passwd"])
def test_a_redirect_never_leaves_the_web_or_tls(location: str) -> None:
    assert isinstance(reconnection().answered(302, {"location": location}), GiveUp)


def test_redirects_end_somewhere() -> None:
    one = reconnection()
    for _ in range(REDIRECTS_MAX):
        assert isinstance(one.answered(302, {"location": "/"}), Move)
    assert isinstance(one.answered(302, {"location": "/"}), GiveUp)


@pytest.mark.parametrize("order", [b"retry: 0\n\n", b"retry: 1\n\n"])
def test_a_server_cannot_order_attempts_without_a_pause(order: bytes) -> None:
    one = reconnection()
    one.feed(order)
    assert all(one.ended("gone").after_s >= 0.1 for _ in range(5))


def test_a_hub_of_either_dialect_says_where_it_resumes() -> None:
    assert reconnection().answered(200, STREAM | {"mercure-last-event-id": "7"}) == Open("7")
