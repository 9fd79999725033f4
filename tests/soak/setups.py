"""How each node of a run is set up, and how each browser reads: drawn from the seed.

Enters: a seed, numbers. Leaves: whether a node has TLS, how many web workers it has, the transport
of a browser.
Never: a run without a node of each kind.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

WORKERS_MAX = 2
PUBLIC_EVERY = 4
"""Each fourth browser has no token."""


class Transport(Enum):
    """How a browser reads."""

    EVENTS = "SSE"
    HTTP_2 = "SSE over HTTP/2"
    OBJECTS = "WebSocket, noti"
    MESSAGES = "WebSocket, sse"

    @property
    def subprotocol(self) -> str:
        """The name of what a WebSocket speaks; nothing for all others."""
        return {Transport.OBJECTS: "noti", Transport.MESSAGES: "sse"}.get(self, "")


_TURN = (
    Transport.EVENTS,
    Transport.HTTP_2,
    Transport.OBJECTS,
    Transport.EVENTS,
    Transport.MESSAGES,
)
"""One after the other; not as many as `PUBLIC_EVERY`, so that each is with and without a token."""


def transport_of(number: int) -> Transport:
    """Return how the browser of this number reads."""
    return _TURN[number % len(_TURN)]


@dataclass(frozen=True)
class Setup:
    """What is different from node to node."""

    has_tls: bool
    """For browsers, whose HTTP/2 needs it."""
    workers: int


def setups_of(seed: int, nodes: int) -> list[Setup]:
    """Return the setups of all nodes; some have TLS, some do not, and one has workers at least."""
    rng = random.Random(f"setups:{seed}")
    tls = [True, False, *(rng.random() < 0.5 for _ in range(nodes - 2))]
    workers = [
        rng.randint(1, WORKERS_MAX),
        *(rng.randint(0, WORKERS_MAX) for _ in range(nodes - 1)),
    ]
    rng.shuffle(tls)
    rng.shuffle(workers)
    return [Setup(has_tls, count) for has_tls, count in zip(tls, workers, strict=True)]


def spoken(transport: Transport, *, has_tls: bool) -> Transport:
    """Return what a browser speaks with a node: HTTP/2 only over TLS, as browsers do."""
    return Transport.EVENTS if transport is Transport.HTTP_2 and not has_tls else transport


def label(transport: Transport, *, has_tls: bool) -> str:
    """Return a transport for a person."""
    return f"{transport.value}, TLS" if has_tls else transport.value


def labels_of(setups: Sequence[Setup], browsers: int) -> list[str]:
    """Return the transports over which so many browsers must have got something."""
    return sorted(
        {
            label(spoken(transport_of(number), has_tls=one.has_tls), has_tls=one.has_tls)
            for one in setups
            for number in range(browsers)
        }
    )
