"""Lines of data, and what they take on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.history.notification import PREFIX, lines_of, sent_bytes
from noti.streams.sse import event_frame
from tests import promises

texts = st.text(
    st.one_of(st.sampled_from("\r\n\u2028\x0b\x00ü😀"), st.characters(codec="utf-8")), max_size=200
)


@promises.UNREADABLE_NOT_LET_IN
@given(texts)
def test_what_is_counted_is_what_is_sent(data: str) -> None:
    head_bytes = len(event_frame("id", ""))
    assert len(event_frame("id", data)) == head_bytes + sent_bytes(data)


@given(texts)
def test_lines_have_no_ends_and_nothing_else_is_lost(data: str) -> None:
    lines = lines_of(data)
    assert not any("\r" in line or "\n" in line for line in lines)
    assert "\n".join(lines) == data.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_each_line_end_costs_a_prefix(end: str) -> None:
    assert sent_bytes(end * 1_000_000) == 7_000_000
    assert sent_bytes("\r\n" * 1_000_000) == 7_000_000
    assert sent_bytes("x" * 1_000_000) == 1_000_000
    assert len(PREFIX) == 6


def test_half_a_surrogate_pair_has_no_size() -> None:
    with pytest.raises(UnicodeEncodeError):
        sent_bytes("a\ud800")
