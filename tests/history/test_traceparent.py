"""What a publisher says of its trace is read, or is no trace; it never costs it the event."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.history.traceparent import TraceContext, context_of, is_trace, text_of, trace_of

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_recorded_trace_is_kept_as_it_stands() -> None:
    assert trace_of(TRACE) == trace_of(f" {TRACE}\t") == TRACE
    assert context_of(TRACE) == TraceContext(int(TRACE_ID, 16), int(SPAN_ID, 16), 1)


def test_later_version_is_read_as_far_as_it_is_known() -> None:
    assert trace_of(f"cc-{TRACE_ID}-{SPAN_ID}-03-what-comes") == f"00-{TRACE_ID}-{SPAN_ID}-03"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "wrong",
        TRACE.upper(),
        TRACE[:-1],
        f"{TRACE}-more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"{TRACE}\n{TRACE}",
    ],
)
def test_wrong_header_is_no_trace(header: str) -> None:
    assert trace_of(header) == ""
    assert not is_trace(header)


def test_trace_that_nobody_records_is_none() -> None:
    assert trace_of(f"00-{TRACE_ID}-{SPAN_ID}-00") == ""


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_context_survives_its_text(trace_id: int, span_id: int, flags: int) -> None:
    context = TraceContext(trace_id, span_id, flags)
    assert context_of(text_of(context)) == context
    assert is_trace(text_of(context)) is bool(flags & 1)


@given(st.text(max_size=80))
def test_any_header_is_a_trace_or_none(header: str) -> None:
    assert trace_of(header) == "" or is_trace(trace_of(header))
