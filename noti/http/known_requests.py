"""Remembers what requests for streams asked for, by all the bytes of their heads.

Browsers of one kind on one page send the same head, up to the cursor, and after a node's death
thousands of them come with the same cursor, too. To read a head and what it asks for takes longer
than all the rest until the stream has begun. A head with a token or a cookie, or one that a proxy
wrote for somebody, is never remembered.
"""

from dataclasses import dataclass
from typing import Final

from noti.authorization.grant import ANONYMOUS
from noti.http.heads import RequestHead
from noti.http.subscribe import WantedStream

KNOWN_MAX: Final = 512
"""Heads that are remembered: kinds of browsers, times topics, times cursors in use at a time."""
HEAD_BYTES_MAX: Final = 2048
"""Longer ones are read anew each time, so that those kept take a few MB at most."""

PERSONAL: Final = frozenset(
    {b"authorization", b"cookie", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"}
)
"""Headers of requests that are not remembered. A secret is not kept; whether a proxy is believed
depends on the address of the connection; and a WebSocket has a key of its own."""


@dataclass(slots=True)
class KnownRequest:
    """A request that has come before."""

    wanted: WantedStream
    origin: str
    """Its Origin header."""


class KnownRequests:
    """The requests that are remembered for one listener, so for one scheme."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownRequest] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, received: bytes) -> KnownRequest | None:
        """Return the request that is exactly this, if it is known."""
        return self._known.get(received)

    def note(self, head: RequestHead, wanted: WantedStream) -> None:
        """Remember what a plain request for a stream asks for, if anybody may have sent it."""
        if not (wanted.grant is ANONYMOUS and not wanted.asked.tokens and head.lacks(PERSONAL)):
            return
        if len(head) > HEAD_BYTES_MAX or not head.ends_received:
            return
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()  # whoever sends others all the time harms nobody
        self._known[head.received] = KnownRequest(wanted, head.header("origin"))
