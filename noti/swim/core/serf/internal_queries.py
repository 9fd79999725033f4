"""Answers the queries by which Serf runs itself; their names begin with `_serf_`.

Enters: queries, the members, the key ring. Leaves: the payload of an answer, or none.
Never: an answer about this node itself; unknown queries, which are of a newer version.
"""

from typing import Final

from noti.errors import MessageInvalid
from noti.swim.core.encoding import MessageFields, pack_ip, unpack
from noti.swim.core.keyring import KeyRing
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import Address, MemberState
from noti.swim.core.serf.key_queries import KEY_OPERATIONS, carry_out, encode_response, truncations
from noti.swim.core.serf.messages import SerfType, pack_serf

INTERNAL_PREFIX: Final = b"_serf_"

CONFLICT_QUERY: Final = b"_serf_conflict"
"""Asks where the others know the node of this name, when two nodes use it: who is known to fewer of
them is to give up the name."""


class InternalQueries:
    """What one node answers, beside the ack, which is all that `_serf_ping` wants."""

    def __init__(self, name: str, members: Members, ring: KeyRing | None) -> None:
        """`ring` is None where keys cannot be changed by queries."""
        self._name = name
        self._members = members
        self._ring = ring

    def answers(self, name: bytes, payload: bytes, *, is_leaving: bool) -> list[bytes]:
        """Return the answer to an internal query, and then shorter ones in case it is too long.

        Of the member that the payload names, `is_leaving` says what its intent is. None without an
        answer.
        """
        if (operation := KEY_OPERATIONS.get(name)) is not None:
            response = carry_out(operation, payload, self._ring)
            return [encode_response(each) for each in truncations(response)]
        if name == CONFLICT_QUERY:
            record = self._members.get(payload.decode(errors="replace"))
            # An agent counts votes of which none is for it as defeat, and stops: so whoever knows
            # the name answers. Who is asked about itself is one of the two.
            if record is not None and record.name != self._name:
                return [_describe(record, is_leaving=is_leaving)]
        return []


def address_of(payload: bytes) -> Address:
    """Return where a member knows the node that it was asked about; raises `MessageInvalid`."""
    if payload[:1] != bytes([SerfType.CONFLICT_RESPONSE]):
        raise MessageInvalid("an answer that is not about a name")
    return MessageFields(unpack(payload[1:])).address("Addr", "Port")


def _describe(record: Record, *, is_leaving: bool) -> bytes:
    host, port = record.address
    protocol_min, protocol_max, protocol, delegate_min, delegate_max, delegate = record.versions
    return pack_serf(
        SerfType.CONFLICT_RESPONSE,
        {
            "Addr": pack_ip(host),
            "DelegateCur": delegate,
            "DelegateMax": delegate_max,
            "DelegateMin": delegate_min,
            "Name": record.name,
            "Port": port,
            "ProtocolCur": protocol,
            "ProtocolMax": protocol_max,
            "ProtocolMin": protocol_min,
            "Status": _status(record.state, is_leaving=is_leaving),
            "Tags": record.tags,
        },
    )


def _status(state: MemberState, *, is_leaving: bool) -> int:
    match state:
        case MemberState.ALIVE | MemberState.SUSPECT:
            return 2 if is_leaving else 1
        case MemberState.LEFT:
            return 3
        case MemberState.DEAD:
            return 4
