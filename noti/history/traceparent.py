"""Which trace an event belongs to, as text: the header `traceparent` (W3C Trace Context, 3.2).

Enters: what a publisher sends, and what a log or a peer holds. Leaves: a trace in its one form,
version 00, of 55 characters; nothing for what is none.
Never: an exception: who sends a wrong header still has its event shown (3.2.2.3); a trace that
nobody records.
"""

import re
from typing import Final, NamedTuple, TypeGuard

SAMPLED: Final = 0x01
"""The flag of traces that are recorded (3.2.2.5.1)."""

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ZEROS: Final = re.compile("0+")
_INVALID_VERSION: Final = "ff"


class TraceContext(NamedTuple):
    """A span of a trace."""

    trace_id: int
    """128 bits, not 0."""
    span_id: int
    """64 bits, not 0."""
    flags: int
    """8 bits."""


def trace_of(header: str) -> str:
    """Return the trace that a header names; empty if it is none, or is not recorded by anybody."""
    if not header:
        return ""
    context = context_of(header.strip())
    return "" if context is None or not context.flags & SAMPLED else text_of(context)


def context_of(text: str) -> TraceContext | None:
    """Return what a `traceparent` says; None when it is invalid.

    Of a later version, what version 00 knows is read (3.2.4).
    """
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == _INVALID_VERSION or (version == "00" and rest is not None):
        return None
    if _ZEROS.fullmatch(trace_id) or _ZEROS.fullmatch(span_id):
        return None
    return TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16))


def text_of(context: TraceContext) -> str:
    """Return the `traceparent` of a span."""
    return "00-%032x-%016x-%02x" % context  # noqa: UP031 - takes half of the time


def is_trace(text: object) -> TypeGuard[str]:
    """Tell whether this is what `trace_of` returns for a trace."""
    return type(text) is str and text != "" and trace_of(text) == text
