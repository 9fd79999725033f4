"""Names and addresses of nodes, as their tags in gossip show them."""

import pytest

from noti.membership.tags import (
    TAG_NODE_ID,
    TAG_RPC,
    alive_and_dead,
    name_of,
    peer_addresses,
)
from noti.swim.core.messages import Member, MemberState


def member(
    name: str, tags: dict[str, str] | None = None, state: MemberState = MemberState.ALIVE
) -> Member:
    return Member(name, ("10.0.0.1", 8401), tags or {}, state, 1)


def peer(name: str, rpc: str, state: MemberState = MemberState.ALIVE) -> Member:
    return member(name, {TAG_NODE_ID: f"id-{name}", TAG_RPC: rpc}, state)


def test_peers_are_all_other_nodes_also_those_who_may_return() -> None:
    members = [peer("a", "a:1"), peer("b", "b:2", MemberState.DEAD), peer("me", "me:1")]
    assert peer_addresses(members, "id-me") == {"id-a": ("10.0.0.1", 1), "id-b": ("10.0.0.1", 2)}


def test_host_that_a_member_only_claims_is_never_dialed() -> None:
    foreigner = peer("a", "203.0.113.9:22")
    assert peer_addresses([foreigner], "id-me") == {"id-a": ("10.0.0.1", 22)}


def test_member_without_a_proper_address_or_id_is_no_peer() -> None:
    members = [
        peer("a", "nonsense"),
        member("b", {TAG_RPC: "b:1"}),
        member("c", {TAG_NODE_ID: "", TAG_RPC: "c:1"}),
        member("d", {TAG_NODE_ID: "id-d"}),
    ]
    assert peer_addresses(members, "id-me") == {}


@pytest.mark.parametrize("own", ["id-me", "id-c"])
def test_address_of_somebody_gone_that_somebody_else_has_now_is_not_dialed(own: str) -> None:
    members = [peer("b", "x:1", MemberState.DEAD), peer("c", "x:1")]
    addresses = peer_addresses(members, own)
    assert "id-b" not in addresses
    assert ("id-c" in addresses) == (own == "id-me")


def test_an_id_has_a_name_unless_two_show_it() -> None:
    one, other = member("one", {TAG_NODE_ID: "1"}), member("other", {TAG_NODE_ID: "2"})
    assert name_of([one, other], "1") == "one"
    assert name_of([one, other], "3") is None
    assert name_of([one, member("impostor", {TAG_NODE_ID: "1"})], "1") is None


def test_node_is_alive_if_a_member_says_so_and_dead_if_all_do() -> None:
    members = [
        peer("a", "a:1"),
        peer("b", "b:1", MemberState.SUSPECT),
        peer("c", "c:1", MemberState.DEAD),
        peer("d", "d:1", MemberState.LEFT),
        peer("a", "old:1", MemberState.DEAD),
    ]
    alive, dead = alive_and_dead(members)
    assert (sorted(alive), sorted(dead)) == (["id-a", "id-b"], ["id-c", "id-d"])
