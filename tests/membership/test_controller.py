"""The membership controller: carries out what the policy advises, on the leader only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from noti.errors import StorageFailed
from noti.membership.controller import EVEN_S, LOOK_EVERY_S, MembershipController
from noti.membership.tags import alive_and_dead
from noti.membership.voters import VoterLimits
from noti.raft.core.membership import Change
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import MemberState
from noti.trio_clock import TrioClock
from tests import promises
from tests.membership.fakes import ELECTION_TIMEOUT_S, FakeGossip, FakeRaft
from tests.membership.nodes import change, leaving, member, status

HOLD_DOWN_S = 15.0


class Scene:
    """The controller of node `a`, which leads unless a test says otherwise."""

    def __init__(self, gossip: FakeGossip, raft: FakeRaft) -> None:
        self.gossip = gossip
        self.raft = raft
        self.asked: set[NodeId] = set()
        self.connected: set[NodeId] = set()
        """Besides those that gossip sees alive."""
        self.controller = MembershipController(
            gossip,
            raft,
            lambda: self.asked,
            lambda: self.connected | alive_and_dead(gossip.members())[0],
            TrioClock(),
            VoterLimits(hold_down_s=HOLD_DOWN_S),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.controller.run)
            yield
            nursery.cancel_scope.cancel()

    @property
    def changes(self) -> list[Change]:
        return [change for _, change in self.raft.changes]


async def test_new_node_becomes_a_learner_first_and_then_a_voter(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(FakeGossip(*map(member, "ab"), member("c", cluster="")), FakeRaft(status("ab")))
    async with scene.running():
        await trio.sleep(2 * LOOK_EVERY_S)
    assert scene.changes == [change(add="c"), change(promote="c")]


async def test_even_number_of_voters_that_stays_is_warned_of_once(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(FakeGossip(*map(member, "abcd")), FakeRaft(status("abcd")))
    async with scene.running():
        await trio.sleep(EVEN_S - 1)
        assert "even number" not in capsys.readouterr().out
        await trio.sleep(10 * EVEN_S)
    assert capsys.readouterr().out.count("even number of voters") == 1


async def test_change_is_committed_before_the_next(autojump_clock: MockClock) -> None:
    raft = FakeRaft(status("ab", "cde", caught_up="cde"), commit_s=3.0)
    scene = Scene(FakeGossip(*map(member, "abcde")), raft)
    async with scene.running():
        await trio.sleep(20)
    (first_at, first), (second_at, second) = raft.changes
    assert (first, second) == (change(promote="c"), change(promote="de"))
    assert second_at - first_at >= raft.commit_s


async def test_dead_voter_is_replaced_when_the_hold_down_is_over_and_not_before(
    autojump_clock: MockClock,
) -> None:
    gossip = FakeGossip(member("a"), member("b"), member("c", MemberState.DEAD), member("d"))
    scene = Scene(gossip, FakeRaft(status("abc", "d", caught_up="d")))
    async with scene.running():
        await trio.sleep(HOLD_DOWN_S - 0.1)
        assert scene.changes == []
        await trio.sleep(LOOK_EVERY_S + 0.1)
    assert scene.changes == [change(promote="d", remove="c")]


async def test_hold_down_begins_anew_with_each_leadership(autojump_clock: MockClock) -> None:
    """What the node saw before may be old: it has not looked while another one led."""
    gossip = FakeGossip(member("a"), member("b"), member("c", MemberState.DEAD), member("d"))
    scene = Scene(gossip, FakeRaft(status("abc", "d", caught_up="d")))
    async with scene.running():
        await trio.sleep(HOLD_DOWN_S - 1)
        scene.raft.lead("b", ready=False)
        await trio.sleep(1)
        scene.raft.lead("a", ready=True)
        await trio.sleep(HOLD_DOWN_S - 1)
        assert scene.changes == []
        await trio.sleep(2)
    assert scene.changes == [change(promote="d", remove="c")]


async def test_node_that_does_not_lead_changes_nothing_until_it_does(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(FakeGossip(*map(member, "abcd")), FakeRaft(status("abc")))
    scene.raft.lead("b", ready=False)
    async with scene.running():
        await trio.sleep(100)
        assert scene.changes == []
        scene.raft.lead("a", ready=True)
        await trio.testing.wait_all_tasks_blocked()
        assert scene.changes == [change(add="d")], "at once, not at the next look"


async def test_leader_that_has_not_committed_in_its_term_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    raft = FakeRaft(replace(status("abc"), leads_ready=False))
    scene = Scene(FakeGossip(*map(member, "abcd")), raft)
    async with scene.running():
        await trio.sleep(100)
    assert scene.changes == []


@promises.DECOMMISSION_KEEPS_QUORUM
@pytest.mark.parametrize("state", [MemberState.DEAD, MemberState.LEFT, None])
async def test_no_voter_is_removed_because_of_gossip_alone(
    state: MemberState | None, autojump_clock: MockClock
) -> None:
    """Neither when it is dead or has left, nor when gossip has forgotten it."""
    others = [] if state is None else [member("b", state), member("c", state)]
    scene = Scene(FakeGossip(member("a"), *others), FakeRaft(status("abc")))
    async with scene.running():
        await trio.sleep(600)
    assert scene.changes == []


async def test_change_that_cannot_be_made_now_is_tried_again(autojump_clock: MockClock) -> None:
    scene = Scene(FakeGossip(*map(member, "abcd")), FakeRaft(status("abc")))
    scene.raft.refusals = 3
    async with scene.running():
        await trio.sleep(2.5 * LOOK_EVERY_S)
        assert scene.changes == []
        await trio.sleep(LOOK_EVERY_S)
    assert scene.changes == [change(add="d")]


async def test_change_that_is_not_right_any_more_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(FakeGossip(*map(member, "abcd")), FakeRaft(status("abc")))
    scene.raft.refusals = 1
    async with scene.running():
        await trio.testing.wait_all_tasks_blocked()
        scene.gossip.seen = tuple(map(member, "abc"))
        await trio.sleep(100)
    assert scene.changes == []


async def test_failure_of_the_log_is_not_survived(autojump_clock: MockClock) -> None:
    scene = Scene(FakeGossip(*map(member, "abcd")), FakeRaft(status("abc")))
    scene.raft.failure = StorageFailed("no space left")
    with pytest.raises(StorageFailed):
        await scene.controller.run()


async def test_node_that_asked_is_demoted(autojump_clock: MockClock) -> None:
    scene = Scene(FakeGossip(member("a"), member("b"), leaving("c")), FakeRaft(status("abc")))
    scene.asked = {"c"}
    async with scene.running():
        await trio.sleep(100)
    assert scene.changes == [change(demote="c")], "and not promoted again"


async def test_leader_that_is_decommissioned_hands_over_and_demotes_nobody(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(FakeGossip(leaving("a"), member("b"), member("c")), FakeRaft(status("abc")))
    scene.asked, scene.raft.successor = {"a"}, "b"
    async with scene.running():
        await trio.sleep(100)
    assert len(scene.raft.hand_overs) == 1
    assert scene.changes == []


async def test_hand_over_that_does_not_succeed_in_time_is_tried_again(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(FakeGossip(leaving("a"), member("b"), member("c")), FakeRaft(status("abc")))
    scene.asked = {"a"}
    async with scene.running():
        await trio.sleep(2 * (ELECTION_TIMEOUT_S + LOOK_EVERY_S) - 0.1)
    assert scene.raft.hand_overs == [0.0, ELECTION_TIMEOUT_S + LOOK_EVERY_S]


async def test_learner_that_left_is_kept_while_it_has_a_stream(autojump_clock: MockClock) -> None:
    """It is sending its browsers away, which shall see what happens meanwhile."""
    gossip = FakeGossip(*map(member, "abc"), member("d", MemberState.LEFT))
    scene = Scene(gossip, FakeRaft(status("abc", "d", caught_up="d")))
    scene.connected = {"d"}
    async with scene.running():
        await trio.sleep(100)
        assert scene.changes == []
        scene.connected = set()
        await trio.sleep(2 * LOOK_EVERY_S)
    assert scene.changes == [change(remove="d")]
