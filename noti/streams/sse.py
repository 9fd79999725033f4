"""Writes Server-Sent Events and the HTTP/1.1 chunks that carry them.

Sources: WHATWG HTML 9.2.5 (event stream syntax) and 9.2.6 (interpretation), RFC 9112 7.1 (chunked
coding).
"""

import json

from noti.errors import MessageInvalid
from noti.history.notification import PREFIX, lines_of
from noti.history.topics import control_in

MEDIA_TYPE = "text/event-stream"

EARLIEST = "earliest"
"""The cursor that stands before everything in history (Mercure 0.x, "Reconciliation")."""

BEGINNING = "beginning"
"""The cursor of a reader who came when there was no history yet: it stands before the first
notification ever. Unlike with `EARLIEST`, what history has lost meanwhile is a gap."""

GAP = "noti-gap"
"""The type of the event that tells of a gap."""

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked body without trailers."""


def event_frame(event_id: str, data: str, event: str = "", retry_ms: int = 0) -> bytes:
    """Return one complete event: `event:` and `retry:` if it has them, `id:`, `data:`.

    Every line of `data` (ended by CR, LF or CRLF) becomes a `data:` line, so that no payload can
    forge a field; data without a line has an empty one, or browsers would show no event.
    Raises `MessageInvalid` when `event_id` is empty, or `event_id` or `event` has a character that
    could forge a line, or that nobody sees.
    """
    if (
        event_id
        and not (event or retry_ms or "\n" in data or "\r" in data)
        and event_id.isprintable()
    ):
        # As nearly always; every node does this for every event.
        return f"id: {event_id}\n{PREFIX}{data}\n\n".encode("utf-8", "replace")
    head = f"event: {_field(event)}\n" if event else ""
    if retry_ms:
        head += f"retry: {retry_ms}\n"
    lines = f"\n{PREFIX}".join(lines_of(data))
    return f"{head}id: {_field(event_id)}\n{PREFIX}{lines}\n\n".encode("utf-8", "replace")


def comment(text: str = "") -> bytes:
    """Return a comment: it keeps proxies awake and is invisible to the page.

    No blank line ends it. That would end an event, and some clients (fetch-event-source, httpx-sse)
    then show one that is empty.
    """
    lines = (f": {line}\n" if line else ":\n" for line in lines_of(text))
    return "".join(lines).encode("utf-8", "replace")


HEARTBEAT = comment()
"""What a silent stream gets."""


def retry(delay_ms: int) -> bytes:
    """Return the order to wait `delay_ms` before connecting again.

    It counts as soon as its line is there (WHATWG HTML 9.2.6), without a blank line.
    """
    return b"retry: %d\n" % delay_ms


def cursor(event_id: str) -> bytes:
    """Return a block that moves the reader's last event id and shows it no event.

    See WHATWG HTML 9.2.6. Only for a reader who asked for such blocks, as not all clients know
    them.
    """
    return f"id: {_field(event_id)}\n\n".encode("utf-8", "replace")


def gap_frame(requested: str) -> bytes:
    """Return the news that history does not hold `requested`, so that events may be missing.

    A comment for people with `curl`, and a named event for programs. Its id makes sure that a
    reader whose connection breaks right here is not shown it twice.
    """
    return comment(GAP) + event_frame(EARLIEST, gap_details(requested), event=GAP)


def gap_details(requested: str) -> str:
    """Return the data of a gap: which cursor is not known, and where the stream begins instead."""
    return json.dumps({"requested": requested[:REQUESTED_LENGTH_MAX], "resumed": EARLIEST})


REQUESTED_LENGTH_MAX = 256
"""Characters of an unknown cursor that are repeated to its sender; ids of ours are far shorter."""


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk; `data` must not be empty, as an empty chunk ends the body."""
    assert data, "an empty chunk would end the stream"
    return b"%x\r\n%b\r\n" % (len(data), data)


def category_text(data: str) -> str | None:
    """Return the line that `/category` shows for a notification's data.

    None when it is no category message.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    match message:
        case {
            "user_id": int(user_id),
            "category_from": str(category_from),
            "category_to": str(category_to),
        } if not isinstance(user_id, bool):
            return f"UserID: {user_id} Category: {category_from} MatchCategory: {category_to}"
        case _:
            return None


def _field(value: str) -> str:
    """Return `value` when it can stand on a field's line."""
    if not value:
        raise MessageInvalid("an event's id is empty")
    if (control := control_in(value)) is not None:
        raise MessageInvalid(
            f"{value[:80]!r} cannot be an event's id or type: it has a control character, "
            f"{control!r}"
        )
    return value
