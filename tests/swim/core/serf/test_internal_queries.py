"""The queries by which Serf runs itself."""

import random

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.swim.core.keyring import KeyRing
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import VERSIONS, Alive, MemberState
from noti.swim.core.serf.internal_queries import CONFLICT_QUERY, InternalQueries, address_of
from noti.swim.core.serf.key_queries import decode_response

PLACE = ("10.0.0.2", 7946)


def queries(state: MemberState = MemberState.ALIVE) -> InternalQueries:
    """Those of node `a`, which knows `b`."""
    members = Members(random.Random(1), 1.0)
    for name in ("a", "b"):
        members.add(Record.of(Alive(1, name, PLACE, b"", VERSIONS), {"role": "db"}, 0.0))
    members["b"].state = state
    return InternalQueries("a", members, KeyRing([bytes(16)]))


@pytest.mark.parametrize(
    ("state", "is_leaving", "status"),
    [
        (MemberState.ALIVE, False, 1),
        (MemberState.SUSPECT, False, 1),
        (MemberState.ALIVE, True, 2),
        (MemberState.LEFT, True, 3),
        (MemberState.DEAD, False, 4),
    ],
)
def test_vote_about_a_name_tells_where_its_node_is_known_and_how(
    state: MemberState, is_leaving: bool, status: int
) -> None:
    (answer,) = queries(state).answers(CONFLICT_QUERY, b"b", is_leaving=is_leaving)
    assert answer[0] == 6
    assert address_of(answer) == PLACE
    fields = msgpack.unpackb(answer[1:], raw=False)
    assert fields["Status"] == status
    assert fields["Name"] == "b"
    assert fields["Tags"] == {"role": "db"}
    assert (fields["ProtocolMin"], fields["ProtocolMax"], fields["ProtocolCur"]) == (1, 5, 2)
    assert (fields["DelegateMin"], fields["DelegateMax"], fields["DelegateCur"]) == (2, 5, 5)


@pytest.mark.parametrize("name", [b"a", b"unknown", b"\xff", b""])
def test_nobody_votes_about_itself_or_about_strangers(name: bytes) -> None:
    assert queries().answers(CONFLICT_QUERY, name, is_leaving=False) == []


@pytest.mark.parametrize("name", [b"_serf_ping", b"_serf_of-a-newer-version"])
def test_ping_and_unknown_queries_get_no_answer_beyond_the_ack(name: bytes) -> None:
    assert queries().answers(name, b"b", is_leaving=False) == []


def test_list_of_keys_is_answered_with_shorter_ones_in_reserve() -> None:
    full, shorter = queries().answers(b"_serf_list-keys", b"", is_leaving=False)
    assert len(decode_response(full).keys or ()) == 1
    assert decode_response(shorter).keys == ()


@pytest.mark.parametrize("raw", [b"", b"\x06\xc0", b"\x06\x80", b"\x05\x80"])
def test_vote_without_an_address_is_rejected(raw: bytes) -> None:
    with pytest.raises(MessageInvalid):
        address_of(raw)
