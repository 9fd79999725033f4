"""What is known about the members, counted and found without looking at all of them."""

import random

from noti.swim.core.members import Members, Record
from noti.swim.core.messages import VERSIONS, Address, Alive, MemberState

GOSSIP_TO_DEAD_S = 30.0
ADDRESSES: list[Address] = [("10.0.0.1", 1), ("10.0.0.1", 2), ("10.0.0.2", 1)]


def record(name: str, address: Address, now: float) -> Record:
    return Record.of(Alive(1, name, address, b"", VERSIONS), {}, now)


def counted(members: Members, now: float) -> int:
    """The size of the cluster as it is defined."""
    return sum(each.present or now - each.changed_at <= GOSSIP_TO_DEAD_S for each in members)


def test_size_and_addresses_are_right_whatever_happened_before() -> None:
    rng = random.Random(3)
    members = Members(rng, GOSSIP_TO_DEAD_S)
    now = 0.0
    for number in range(2_000):
        now += rng.choice([0.0, 0.1, 5.0])
        name = f"n{rng.randrange(12)}"
        known = members.get(name)
        if known is None:
            members.add(record(name, rng.choice(ADDRESSES), now))
        elif number % 7 == 0:
            members.forget(name)
        elif number % 3 == 0:
            members.move(known, rng.choice(ADDRESSES))
        else:
            members.set_state(known, rng.choice(list(MemberState)), now)
        assert members.count(now) == counted(members, now)
        for address in ADDRESSES:
            there = [each for each in members if each.address == address]
            assert members.knows(address) is bool(there)
            assert members.at(address) == next((each for each in there if each.present), None)


def test_random_members_are_different_ones_and_all_of_a_small_cluster() -> None:
    members = Members(random.Random(1), GOSSIP_TO_DEAD_S)
    for number in range(5):
        members.add(record(f"n{number}", ADDRESSES[0], 0.0))
    members.set_state(members["n4"], MemberState.SUSPECT, 0.0)
    for count in (1, 2, 3, 9):
        for _ in range(20):
            names = [each.name for each in members.pick(count, without=("n0",))]
            assert len(set(names)) == len(names) == min(count, 3)
            assert set(names) <= {"n1", "n2", "n3"}
