"""Gossip nodes among forged packets, and mistakes that the forger must find."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from noti.swim.core.member_states import MemberStates
from noti.swim.core.members import Record
from noti.swim.core.messages import Address, Alive, Dead, MemberState
from noti.swim.core.newcomers import Backing
from noti.swim.core.probing import Prober
from noti.swim.core.validate import Incarnations
from noti.swim.core.verification import Verifier
from tests import promises
from tests.simulation.forger import Forger
from tests.simulation.gossip_cluster import MEMBERS_MAX, PORT, GossipCluster, GossipNode

JOIN_S = 5.0
INCARNATION_SOUND_MAX = 2**31
"""Far above this, nobody could object for long to what is said next."""

RECOVERY_S = 90.0
"""Some full exchanges, and the pauses in which gossip heals what is above somebody's clock."""


def invalid_parts(cluster: GossipCluster) -> list[str]:
    """Return whatever a node believes of a real one that must not be believed."""
    found = []
    for node in cluster.nodes:
        members = {member.name: member for member in node.gossip.members()}
        found += [f"{node.name} knows {name}" for name in members if name.startswith("x")]
        if len(members) > MEMBERS_MAX:
            found.append(f"{node.name} knows {len(members)} members")
        for other in cluster.nodes:
            member = members[other.name]
            if member.state in (MemberState.DEAD, MemberState.LEFT):
                found.append(f"{node.name} sees {other.name} {member.state.name.lower()}")
            if member.incarnation > INCARNATION_SOUND_MAX:
                found.append(f"{node.name} believes incarnation {member.incarnation}")
            if member.tags != {"id": f"id of {other.name}", "role": "noti"}:
                found.append(f"{node.name} sees {other.name} with tags {member.tags}")
            if member.address != (other.ip, PORT):
                found.append(f"{node.name} sees {other.name} at {member.address}")
    return found


async def storm(seed: int) -> str | None:
    """Forge packets at a cluster; return the first thing that broke, or None."""
    cluster = GossipCluster(4, seed=seed)
    found: str | None = None
    async with trio.open_nursery() as nursery:
        await cluster.start(nursery)
        await cluster.until_all_alive(within_s=JOIN_S)
        await trio.sleep(20)
        over = trio.Event()

        async def forge() -> None:
            await Forger(cluster, seed).run(packets=300, pause_s=0.1)
            over.set()

        nursery.start_soon(forge)
        while found is None and not over.is_set():
            found = next(iter(invalid_parts(cluster)), None)
            await trio.sleep(0.05)
        found = found or await recovered(cluster)
        nursery.cancel_scope.cancel()
    return found


async def recovered(cluster: GossipCluster) -> str | None:
    """Wait until all is as if nothing had been forged; return what is not."""

    def is_sound(node: GossipNode) -> bool:
        members = {member.name: member for member in node.gossip.members()}
        return all(
            members[other.name].state is MemberState.ALIVE
            and members[other.name].tags == {"id": f"id of {other.name}", "role": "noti"}
            for other in cluster.nodes
        ) and not any(
            member.state is MemberState.ALIVE
            for name, member in members.items()
            if name.startswith("x")
        )

    # One invented member after the other is probed; most of them were never there at all.
    with trio.move_on_after(RECOVERY_S + MEMBERS_MAX):
        while not all(is_sound(node) for node in cluster.nodes):  # noqa: ASYNC110 - of many nodes
            await trio.sleep(1)
        return "; ".join(invalid_parts(cluster)) or None
    return f"not sound again: {[node.view() for node in cluster.nodes]}"


def run(seed: int) -> str | None:
    return trio.run(storm, seed, clock=MockClock(autojump_threshold=0))


@promises.FORGED_GOSSIP_HARMS_NOBODY
@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_stranger_forges_no_node_is_seen_gone_or_elsewhere(seed: int) -> None:
    assert run(seed) is None


# Mistakes


def believes_any_incarnation(patch: pytest.MonkeyPatch) -> None:
    """Nobody can object to the largest number."""
    patch.setattr(Incarnations, "why_invalid", lambda *_, **__: None)


def buries_without_asking(patch: pytest.MonkeyPatch) -> None:
    """As memberlist does: who is said to be dead is dead."""

    def on_dead(self: MemberStates, dead: Dead, now: float) -> None:
        record = self._members.get(dead.node)
        if record is not None and record.present and dead.incarnation >= record.incarnation:
            self._lose(record, on_purpose=dead.accuser == dead.node, now=now)

    patch.setattr(MemberStates, "on_dead", on_dead)


def hears_no_answers(patch: pytest.MonkeyPatch) -> None:
    """Only who objects in time stays."""
    patch.setattr(Prober, "on_ack", lambda *_: None)
    patch.setattr(Verifier, "proofs", lambda *_: [])


def moves_whoever_is_said_to_have_moved(patch: pytest.MonkeyPatch) -> None:
    """The identity in a member's tags is no secret."""
    patch.setattr(MemberStates, "_doubt_place", MemberStates._revive)


def believes_whatever_is_said_to_be_there(patch: pytest.MonkeyPatch) -> None:
    """As memberlist does: it asks nobody before."""
    on_alive = MemberStates.on_alive

    def believe(
        self: MemberStates, alive: Alive, source: Address | None, _: Backing, now: float
    ) -> None:
        on_alive(self, alive, source, Backing.PROVEN, now)

    patch.setattr(MemberStates, "on_alive", believe)


def remembers_whatever_is_invented(patch: pytest.MonkeyPatch) -> None:
    """Members are not bounded."""
    believes_whatever_is_said_to_be_there(patch)
    patch.setattr(MemberStates, "_make_room", lambda *_: True)


def forgets_real_members_for_invented_ones(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes first by name is the first to go."""
    believes_whatever_is_said_to_be_there(patch)

    def make_room(self: MemberStates, _: Record) -> bool:
        if len(self._members) >= MEMBERS_MAX:
            self.forget(next(record for record in self._members if record is not self._me))
        return True

    patch.setattr(MemberStates, "_make_room", make_room)


MISTAKES = (
    believes_any_incarnation,
    buries_without_asking,
    moves_whoever_is_said_to_have_moved,
    believes_whatever_is_said_to_be_there,
    remembers_whatever_is_invented,
    forgets_real_members_for_invented_ones,
    hears_no_answers,
)


@promises.CHECKS_FIND_MISTAKES
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_planted_mistake_is_found(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    assert any(finds(seed) for seed in range(3))


def finds(seed: int) -> bool:
    """Whether anything is wrong; a node that fell over its own assertions is, too."""
    fell = False
    found = None
    try:
        found = run(seed)
    except* (AssertionError, KeyError):
        fell = True
    return fell or found is not None
