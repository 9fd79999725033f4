"""Decoders of Serf's layer for `targets.py`: messages, states, answers.

Enters: bytes. Leaves: nothing, or an `AssertionError`, or what the decoder let out.
Never: sockets.
"""

import random
from collections.abc import Callable, Sequence

from noti.swim.core.keyring import KeyRing
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import VERSIONS, Alive
from noti.swim.core.outbox import Outbox
from noti.swim.core.serf.internal_queries import CONFLICT_QUERY, address_of
from noti.swim.core.serf.key_queries import (
    KeyOperation,
    KeyResponse,
    decode_response,
    encode_request,
    encode_response,
)
from noti.swim.core.serf.layer import Serf
from noti.swim.core.serf.messages import (
    Intent,
    NodeFilter,
    QueryResponse,
    RelayedMessage,
    SerfMessage,
    SerfQuery,
    SerfType,
    TagFilter,
    UserEvent,
    encode_serf,
    pack_serf,
)
from noti.swim.core.serf.states import SerfState, encode_state
from noti.swim.core.timing import SwimConfig

PLACE = ("127.0.0.1", 7946)
ANSWER = QueryResponse(1, 7, "beta", False, b"yes")
MESSAGES: list[SerfMessage] = [
    Intent(False, "beta", 1),
    Intent(True, "beta", 2, prune=True),
    UserEvent(1, b"deploy", b"abc123"),
    SerfQuery(
        1, 7, PLACE, "alpha", b"uptime", b"", (NodeFilter((b"alpha",)), TagFilter("role", "w.b")), 1
    ),
    SerfQuery(2, 8, PLACE, "alpha", CONFLICT_QUERY, b"beta", flags=1, relay_factor=3),
    SerfQuery(3, 9, PLACE, "alpha", KeyOperation.INSTALL.value.encode(), encode_request(bytes(16))),
    SerfQuery(4, 10, PLACE, "alpha", KeyOperation.LIST.value.encode(), b""),
    ANSWER,
    RelayedMessage(PLACE, encode_serf(ANSWER)),
]
SERF_STATE = encode_state(
    SerfState(5, {"beta": 3, "gamma": 2}, frozenset({"gamma"}), 4, (UserEvent(3, b"e", b"p"),), 2)
)
KEYS = encode_response(KeyResponse(True, "", ("AAAAAAAAAAAAAAAAAAAAAA==",), "AAAA"))
MEMBER = pack_serf(
    SerfType.CONFLICT_RESPONSE, {"Addr": bytes(4), "Name": "beta", "Port": 7946, "Tags": {"a": "b"}}
)


def layer(name: str = "alpha", ring: KeyRing | None = None) -> tuple[Serf, Outbox]:
    """A layer of a node that knows itself and `beta`, both at one address."""
    config, rng = SwimConfig(), random.Random(1)
    members, outbox = Members(rng, 1.0), Outbox(config)
    for each in (name, "beta"):
        members.add(Record.of(Alive(1, each, PLACE, b"", VERSIONS), {"role": "web"}, 0.0))
    me = members[name]
    ring = ring or KeyRing([bytes(32)])
    return Serf(me, members=members, outbox=outbox, config=config, rng=rng, ring=ring), outbox


def take_message(data: bytes) -> None:
    """What is taken once is not passed on a second time, and answers are short."""
    serf, outbox = layer()
    serf.receive(data, 1.0, leaving=False)
    outbox.send(PLACE)
    assert serf.receive(data, 1.0, leaving=False) == []
    outbox.collect()


def merge_state(data: bytes) -> None:
    """What a state brought is still there, and can be told to others."""
    serf, _ = layer()
    serf.merge(data or b"\x02", 1.0, leaving=False)
    other, _ = layer("gamma")
    other.merge(serf.state(), 1.0, leaving=False)


SERF_DECODERS: dict[str, tuple[Sequence[bytes], Callable[[bytes], object]]] = {
    "message": ([*map(encode_serf, MESSAGES)], take_message),
    "state": ([SERF_STATE], merge_state),
    "answer about keys": ([KEYS], decode_response),
    "answer about a name": ([MEMBER], address_of),
}
"""Examples and decoder, by name."""
