"""Counts what became of tokens."""

from typing import Final

from prometheus_client import Counter

REJECTED: Final = Counter(
    "noti_tokens_rejected_total",
    "Requests whose token was rejected, by why: missing, malformed, invalid, insufficient (the "
    "token does not allow this), forged (a cookie from a page that may not publish).",
    ["reason"],
)
CHECKED: Final = Counter(
    "noti_tokens_checked_total",
    "Tokens that were good, by how that is known: signature, or cache.",
    ["by"],
)
