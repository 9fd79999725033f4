"""Queries: passed on once, answered where they came from, gathered until their time is over."""

import math
from collections.abc import Sequence

import pytest

from noti.errors import MessageInvalid
from noti.swim.core.events import (
    QueryAnswered,
    QueryEnded,
    QueryReceived,
    QueryRequested,
    SendPacket,
)
from noti.swim.core.keyring import KEYS_MAX, KeyRing, format_key
from noti.swim.core.messages import Address, Message, User
from noti.swim.core.packets import decode_packet
from noti.swim.core.serf.key_queries import decode_response
from noti.swim.core.serf.messages import (
    NodeFilter,
    QueryFilter,
    QueryResponse,
    RelayedMessage,
    SerfQuery,
    TagFilter,
    UnknownFilter,
    UserEvent,
    decode_serf,
    encode_serf,
)
from noti.swim.core.serf.queries import compile_expression
from tests.fuzz.serf_inputs import PLACE, layer
from tests.swim.core.wire import Wire, address

N2 = address("n2")
STRANGER = ("203.0.113.9", 53)


def cluster(size: int = 2, *, ring: KeyRing | None = None, **tags: str) -> Wire:
    """Cores n1, n2, … that know each other; n1 has a key ring and tags."""
    wire = Wire()
    wire.add("n1", ring=ring, tags=tags)
    for number in range(2, size + 1):
        wire.add(f"n{number}", seeds=["n1"])
    wire.run(5)
    wire.sent.clear()
    wire.effects.clear()
    return wire


def query(
    time: int = 5,
    *filters: QueryFilter,
    query_id: int = 7,
    to: Address = N2,
    name: bytes = b"q",
    payload: bytes = b"",
    flags: int = 1,
    relay_factor: int = 0,
) -> SerfQuery:
    return SerfQuery(
        time, query_id, to, "n2", name, payload, filters, flags, relay_factor, timeout_s=5.0
    )


def ask(wire: Wire, question: SerfQuery) -> list[tuple[Address, object]]:
    """Give n1 a query; return what it sends at once, and to whom."""
    effects = wire.deliver("n1", User(encode_serf(question)))
    return user_messages(wire.messages(effects))


def user_messages(sent: Sequence[tuple[Address, Message]]) -> list[tuple[Address, object]]:
    users = [(to, each) for to, each in sent if isinstance(each, User)]
    return [(to, decode_serf(each.payload)) for to, each in users]


def answers(wire: Wire) -> list[tuple[str, bool, bytes]]:
    return [
        (effect.node, effect.is_ack, effect.payload)
        for _, _, effect in wire.effects
        if isinstance(effect, QueryAnswered)
    ]


def test_query_is_acked_once_where_it_came_from() -> None:
    wire = cluster()
    assert ask(wire, query())[0] == (address("n2"), QueryResponse(5, 7, "n1", True, b""))
    assert ask(wire, query()) == []
    assert ask(wire, query(query_id=8))
    assert ask(wire, query(time=6))


def test_query_without_the_flag_is_not_acked() -> None:
    wire = cluster()
    acks = [each for _, each in ask(wire, query(flags=0)) if isinstance(each, QueryResponse)]
    assert acks == []
    assert [e for _, _, e in wire.effects if isinstance(e, QueryReceived)] == [
        QueryReceived("q", "n2")
    ]


@pytest.mark.parametrize(("flags", "passed_on"), [(0, True), (1, True), (2, False), (3, False)])
def test_query_is_passed_on_unless_it_says_not_to(flags: int, passed_on: bool) -> None:
    wire = cluster(3)
    ask(wire, query(flags=flags))
    wire.run(1)
    others = [each for name, _, each in wire.sent if name == "n1" and isinstance(each, User)]
    assert (User(encode_serf(query(flags=flags))) in others) is passed_on


def test_old_query_is_dropped() -> None:
    wire = cluster()
    ask(wire, query(time=1000))
    assert ask(wire, query(time=400, query_id=9)) == []


def test_stranger_gets_no_answer_and_relays_nothing_to_one() -> None:
    wire = cluster(3)
    acks = [each for to, each in ask(wire, query(to=STRANGER, relay_factor=2)) if to == STRANGER]
    assert acks == []
    relayed = RelayedMessage(STRANGER, encode_serf(QueryResponse(5, 7, "n2", True, b"")))
    assert wire.deliver("n1", User(encode_serf(relayed))) == []


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ([NodeFilter((b"n1", b"n9"))], True),
        ([NodeFilter((b"n9",))], False),
        ([TagFilter("role", "^we")], True),
        ([TagFilter("role", "eb")], True),
        ([TagFilter("role", "^eb")], False),
        ([TagFilter("missing", "^$")], True),
        ([TagFilter("missing", ".")], False),
        ([NodeFilter((b"n1",)), TagFilter("role", "db")], False),
        ([TagFilter("role", "(")], False),
        ([UnknownFilter()], False),
    ],
)
def test_only_who_passes_all_filters_acks_but_everyone_passes_on(
    filters: list[QueryFilter], passes: bool
) -> None:
    wire = cluster(role="web")
    sent = ask(wire, query(5, *filters))
    assert bool([each for _, each in sent if isinstance(each, QueryResponse)]) is passes
    wire.run(1)
    raw = encode_serf(query(5, *filters))
    assert [each for name, _, each in wire.sent if name == "n1" and each == User(raw)]


def test_expression_that_would_take_for_ever_elsewhere_takes_no_time() -> None:
    find = compile_expression("(a+)+$" * 20)
    assert find("a" * 400 + "b") is None
    with pytest.raises(MessageInvalid):
        compile_expression("((((a{100}){100}){100}){100})")


def test_unknown_internal_query_is_acked_and_has_no_answer() -> None:
    wire = cluster()
    sent = ask(wire, query(name=b"_serf_new"))
    responses = [each for _, each in sent if isinstance(each, QueryResponse)]
    assert [each.is_ack for each in responses] == [True]


def test_vote_about_a_name_is_answered() -> None:
    wire = cluster()
    sent = ask(wire, query(name=b"_serf_conflict", payload=b"n2", flags=0))
    (response,) = [each for _, each in sent if isinstance(each, QueryResponse)]
    assert not response.is_ack
    assert response.payload[0] == 6


def test_answer_also_goes_over_as_many_members_as_asked_for() -> None:
    wire = cluster(5)
    direct, *relayed = ask(wire, query(relay_factor=2))
    ack = QueryResponse(5, 7, "n1", True, b"")
    assert direct == (address("n2"), ack)
    over = [to for to, each in relayed if each == RelayedMessage(address("n2"), encode_serf(ack))]
    assert len(set(over)) == len(over) == 2
    assert not {address("n1"), address("n2")} & set(over)


def test_relayed_answer_goes_on_to_a_member_as_it_is() -> None:
    wire = cluster()
    ack = encode_serf(QueryResponse(5, 7, "n3", True, b""))
    effects = wire.deliver("n1", User(encode_serf(RelayedMessage(address("n2"), ack))))
    assert wire.messages(effects)[0] == (address("n2"), User(ack))


def test_nothing_but_answers_is_relayed() -> None:
    wire = cluster()
    inner = encode_serf(RelayedMessage(address("n2"), b"\x05\x80"))
    for raw in (inner, encode_serf(UserEvent(1, b"e", b"")), b""):
        assert wire.deliver("n1", User(encode_serf(RelayedMessage(address("n2"), raw)))) == []


def test_everyone_acks_our_query_us_included_until_it_ends() -> None:
    wire = cluster(4)
    wire.give("n1", QueryRequested(99, b"uptime", b"", wants_acks=True))
    assert answers(wire) == [("n1", True, b"")]
    wire.run(1)
    assert sorted(answers(wire)) == [(f"n{number}", True, b"") for number in range(1, 5)]
    assert not [e for _, _, e in wire.effects if isinstance(e, QueryEnded)]
    wire.run(1)
    ends = [(at, e) for at, _, e in wire.effects if isinstance(e, QueryEnded)]
    # 16 gossip intervals of the Local profile, for less than ten members.
    assert [(round(at - 1005.0, 3), e) for at, e in ends] == [(1.6, QueryEnded(99))]


def test_no_query_of_many_misses_a_member_of_a_small_cluster() -> None:
    wire = cluster(4)
    for query_id in range(50):
        wire.effects.clear()
        wire.give("n1", QueryRequested(query_id, b"q", b"", wants_acks=True))
        wire.run(1.6)
        assert len(answers(wire)) == 4


def test_answer_does_not_take_the_query_back_to_who_asked() -> None:
    wire = cluster()
    effects = wire.deliver("n1", User(encode_serf(query())))
    assert [m for _, m in wire.messages(effects) if m == User(encode_serf(query()))] == []


def test_query_waits_longer_in_a_larger_cluster() -> None:
    wire = Wire()
    core = wire.add("n1")
    for number in range(2, 12):
        wire.add(f"n{number}", seeds=["n1"])
    wire.run(10)
    assert len(core.members()) == 11
    core.handle(QueryRequested(99, b"q", b""), wire.now)
    wire.effects.clear()
    start = wire.now
    wire.run(4)
    (at,) = [at for at, _, e in wire.effects if isinstance(e, QueryEnded)]
    assert math.isclose(at - start, 3.2)


def test_answers_count_once_from_members_in_time_and_to_queries_of_ours() -> None:
    wire = cluster()
    wire.stopped.add("n2")
    wire.give("n1", QueryRequested(99, b"q", b"", timeout_s=1.0))
    time = next(
        each.time
        for _, each in user_messages([(to, m) for _, to, m in gossip_of(wire)])
        if isinstance(each, SerfQuery)
    )
    for response in (
        QueryResponse(time, 99, "n2", False, b"first"),
        QueryResponse(time, 99, "n2", False, b"second"),
        QueryResponse(time, 99, "n2", True, b""),
        QueryResponse(time, 99, "stranger", False, b"x"),
        QueryResponse(time, 98, "n2", False, b"x"),
        QueryResponse(time + 1, 99, "n2", False, b"x"),
    ):
        wire.deliver("n1", User(encode_serf(response)))
    assert answers(wire) == [("n2", False, b"first"), ("n2", True, b"")]
    wire.run(1.1)
    wire.effects.clear()
    late = QueryResponse(time, 99, "n2", False, b"late")
    wire.deliver("n1", User(encode_serf(late)))
    assert answers(wire) == []


def gossip_of(wire: Wire) -> list[tuple[str, Address, Message]]:
    wire.run(0.3)
    return [each for each in wire.sent if each[0] == "n1"]


def test_flood_of_queries_is_passed_on_and_answered_in_part_until_a_second_later() -> None:
    wire = cluster()
    for query_id in range(500):
        ask(wire, query(query_id=query_id))
    acks = [m for name, to, m in wire.sent if name == "n1" and to == N2 and isinstance(m, User)]
    assert len(acks) == 100
    wire.run(1.1)
    assert ask(wire, query(query_id=600))
    wire.give("n1", QueryRequested(99, b"q", b"", wants_acks=True))
    assert answers(wire) == [("n1", True, b"")]


def test_long_list_of_keys_is_cut_to_what_agents_take() -> None:
    keys = [bytes([number]) * 32 for number in range(KEYS_MAX)]
    serf, outbox = layer("€" * 128, KeyRing(keys))  # the longest name
    listing = query(name=b"_serf_list-keys", flags=0, to=PLACE)
    serf.receive(encode_serf(listing), 1.0, leaving=False)
    sent = [each for each in outbox.collect() if isinstance(each, SendPacket)]
    messages = [(each.to, m) for each in sent for m in decode_packet(each.payload).messages]
    (response,) = [each for _, each in user_messages(messages) if isinstance(each, QueryResponse)]
    assert len(encode_serf(response)) <= 1024
    listed = decode_response(response.payload)
    assert listed.keys is not None
    assert 9 <= len(listed.keys) < KEYS_MAX
    assert listed.keys == tuple(format_key(key) for key in keys[: len(listed.keys)])
    assert (
        listed.text == f"truncated key list response, showing first {len(listed.keys)} of 16 keys"
    )


def test_our_own_request_about_keys_is_left_to_who_asked() -> None:
    ring = KeyRing([bytes(16), bytes(32)])
    wire = cluster(1, ring=ring)
    wire.give("n1", QueryRequested(99, b"_serf_use-key", b"\x07\x81\xa3Key\xa0"))
    assert answers(wire) == []
    assert ring.primary == bytes(16)
