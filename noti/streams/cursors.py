"""Names positions in the replicated order, for readers who ask for them (`?cursor=1`).

The id of the newest event would be a position too, but often of an event that the reader cannot
see; and the newest event that it has seen falls out of history while others are busy. So a cursor
is a number, the same on every node, with a short digest of the event that stands there: the number
of another cluster, or of one that was restored from a backup, is recognised, and the reader gets a
gap. The digest covers all of the event, time and data too, so that guessing an id confirms nothing;
no id and no topic, which the reader may not be allowed to see, is in it.
"""

import hashlib
import re

from noti.history.notification import Notification

PREFIX = "noti:"

_CURSOR = re.compile(r"noti:([1-9][0-9]{0,18})-[0-9a-f]{8}")


def cursor_of(notification: Notification) -> str:
    """Return the place right behind a notification."""
    digest = hashlib.sha256(repr(tuple(notification)).encode("utf-8", "replace")).hexdigest()
    return f"{PREFIX}{notification.seq}-{digest[:8]}"


def seq_in(cursor: str) -> int | None:
    """Return the number in a cursor; None when it is none of ours. Whether the notification with
    this number has this cursor is for the caller to see.
    """
    found = _CURSOR.fullmatch(cursor)
    return int(found[1]) if found else None
