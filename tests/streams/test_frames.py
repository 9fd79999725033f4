"""Promises of the frames that are kept: built once while they are in use, and bounded by bytes."""

import pytest

from noti.streams import frames, sse
from noti.streams.audience import View
from noti.streams.frames import FRAMES_BYTES_MAX, Frames
from noti.streams.framing import EVENT_STREAM
from tests.http.stage import notification


def test_a_frame_is_built_once_for_all_who_get_it() -> None:
    kept = Frames(View.MERCURE, EVENT_STREAM)
    assert kept.of(notification(1)) is kept.of(notification(1))
    kept.clear()
    assert kept.of(notification(2, data="a")) == b"id: id-2\ndata: a\n\n"


def test_type_and_retry_are_in_the_frame() -> None:
    one = notification(1, data="a")._replace(type="news", retry_ms=5)
    assert (
        Frames(View.MERCURE, EVENT_STREAM).of(one)
        == b"event: news\nretry: 5\nid: id-1\ndata: a\n\n"
    )


def test_what_is_no_category_message_has_no_frame_and_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Frames(View.CATEGORY, EVENT_STREAM)
    assert kept.of(notification(1, data="hello")) is None
    monkeypatch.setattr(sse, "category_text", None)
    assert kept.of(notification(1, data="hello")) is None


def test_frames_take_no_more_than_their_bound_and_the_latest_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "FRAMES_BYTES_MAX", 10_000)
    kept = Frames(View.MERCURE, EVENT_STREAM)
    last = None
    for seq in range(1, 1001):
        last = kept.of(notification(seq))
        held = [one for one in (*kept._newer.values(), *kept._older.values()) if one]
        assert sum(map(len, held)) <= 10_000 + 500
    assert kept.of(notification(1000)) is last
    assert FRAMES_BYTES_MAX > 10_000
