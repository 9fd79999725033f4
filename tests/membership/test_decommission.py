"""A node is decommissioned: it asks until the cluster has agreed, and says why when it has not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from noti.errors import DecommissionRejected
from noti.membership.controller import MembershipController
from noti.membership.decommission import ASK_EVERY_S, LOOK_EVERY_S, Decommission
from noti.membership.voters import VoterLimits
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId
from noti.raft.core.status import Status
from noti.swim.core.messages import Member, MemberState
from noti.trio_clock import TrioClock
from tests.membership.fakes import FakeGossip, FakeRaft
from tests.membership.nodes import change, leaving, member, status


class Scene:
    """The way out of node `c`, in a cluster that agrees when the test says so."""

    def __init__(self, view: Status | None = None, *members: Member, node: NodeId = "c") -> None:
        self.raft = FakeRaft(view or status("abc"))
        self.gossip = FakeGossip(*(members or map(member, "abc")))
        self.node = node
        self.requests: list[float] = []
        self.shown: list[bool] = []
        self.decommission = Decommission(
            node, self.gossip, self.raft, self, self.show_leaving, TrioClock()
        )

    def request_demotion(self) -> None:
        assert self.shown[-1:] == [True], "whoever leads next must know of it"
        self.requests.append(trio.current_time())

    def show_leaving(self, leaving: bool) -> None:
        self.shown.append(leaving)
        seen = [one for one in self.gossip.seen if one.name != f"name-{self.node}"]
        self.gossip.seen = (*seen, member(self.node, leaving=leaving))

    def agree(self, *, committed: bool = True) -> None:
        """Make the node a learner."""
        index = self.raft.now.commit_index + (not committed)
        view = replace(status("ab", "c"), configuration_index=index)
        self.raft.now = view

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.decommission.run)
            yield nursery
            nursery.cancel_scope.cancel()


async def test_nothing_is_asked_for_before_the_operator_does(autojump_clock: MockClock) -> None:
    scene = Scene()
    async with scene.running():
        await trio.sleep(1000)
    assert (scene.requests, scene.shown) == ([], [])


async def test_node_asks_again_and_again_until_it_does_not_vote(autojump_clock: MockClock) -> None:
    """A request may be lost, and the leader with it."""
    scene = Scene()
    async with scene.running() as nursery:
        nursery.start_soon(scene.decommission.leave, 60.0)
        await trio.sleep(10 * ASK_EVERY_S - 0.1)
        assert len(scene.requests) == 10
        scene.agree()
        await trio.sleep(100)
    assert len(scene.requests) == 10
    assert scene.shown == [True], "and stays so: it must not be promoted again"


async def test_answer_comes_when_a_majority_has_the_demotion_on_disk(
    autojump_clock: MockClock,
) -> None:
    scene = Scene()
    answered: list[float] = []

    async def leave() -> None:
        await scene.decommission.leave(60.0)
        answered.append(trio.current_time())

    async with scene.running() as nursery:
        nursery.start_soon(leave)
        await trio.sleep(1)
        scene.agree(committed=False)
        await trio.sleep(1)
        assert answered == []
        scene.agree()
        await trio.sleep(LOOK_EVERY_S)
        assert len(answered) == 1


async def test_learner_is_done_at_once_and_shows_that_it_must_not_be_promoted(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(status("ab", "c"))
    async with scene.running():
        await scene.decommission.leave(60.0)
        await trio.sleep(100)
    assert trio.current_time() == pytest.approx(100)
    assert (scene.requests, scene.shown) == ([], [True])


@pytest.mark.parametrize(
    ("leader", "state", "reason"),
    [
        (None, MemberState.ALIVE, "the cluster has no leader"),
        ("a", MemberState.DEAD, "name-b of the voters that would stay cannot be reached"),
        ("a", MemberState.ALIVE, "the leader, name-a, did not get it committed"),
        ("z", MemberState.ALIVE, "the leader, z, did not get it committed"),
    ],
)
async def test_answer_after_the_time_names_what_keeps_the_cluster_from_agreeing(
    leader: NodeId | None, state: MemberState, reason: str, autojump_clock: MockClock
) -> None:
    view = replace(status("abc"), leader=leader)
    scene = Scene(view, member("a"), member("b", state), member("c"))
    async with scene.running():
        with pytest.raises(DecommissionRejected) as error:
            await scene.decommission.leave(5.0)
        assert trio.current_time() == pytest.approx(5.0)
    assert str(error.value) == (
        f"not done within 5 s: {reason}; the node goes on trying until it stops"
    )


async def test_node_goes_on_asking_after_that_answer(autojump_clock: MockClock) -> None:
    scene = Scene()
    async with scene.running():
        with pytest.raises(DecommissionRejected):
            await scene.decommission.leave(1.0)
        asked = len(scene.requests)
        await trio.sleep(10.5 * ASK_EVERY_S)
        assert len(scene.requests) >= asked + 10
        assert scene.shown == [True]
        scene.agree()
        await scene.decommission.leave(1.0)


async def test_node_goes_on_asking_when_the_operator_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    scene = Scene()
    async with scene.running():
        with trio.move_on_after(1.0) as scope:
            await scene.decommission.leave(60.0)
        assert scope.cancelled_caught
        asked = len(scene.requests)
        await trio.sleep(10.5 * ASK_EVERY_S)
        assert len(scene.requests) >= asked + 10


async def test_last_voter_stays_and_takes_back_what_it_has_shown(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(status("a", "b"), member("a"), member("b"), node="a")
    async with scene.running() as nursery:
        nursery.start_soon(scene.decommission.leave, 60.0)
        await trio.sleep(1)
        assert scene.shown == [True], "the learner may be promoted"
        nursery.cancel_scope.cancel()
    scene.gossip.seen = (leaving("a"), leaving("b"))
    async with scene.running():
        with pytest.raises(DecommissionRejected, match="last voter"):
            await scene.decommission.leave(60.0)
        asked = len(scene.requests)
        await trio.sleep(10)
        assert len(scene.requests) == asked
    assert scene.shown == [True, False]


async def test_node_without_a_cluster_rejects_the_request_and_asks_nobody(
    autojump_clock: MockClock,
) -> None:
    scene = Scene(replace(status("abc"), configuration=Configuration()))
    async with scene.running():
        with pytest.raises(DecommissionRejected, match="belongs to no cluster yet"):
            await scene.decommission.leave(60.0)
        await trio.sleep(10)
    assert (scene.requests, scene.shown) == ([], [])


async def test_leader_hands_over_before_it_is_demoted(autojump_clock: MockClock) -> None:
    """The controllers of the leader and of its successor, over one log."""
    scene = Scene(node="a")
    scene.raft.successor = "b"

    def asked() -> set[NodeId]:
        return {"a"} if scene.requests else set()

    controller = MembershipController(
        scene.gossip, scene.raft, asked, set, TrioClock(), VoterLimits()
    )
    async with scene.running() as nursery:
        await nursery.start(controller.run)
        nursery.start_soon(scene.decommission.leave, 60.0)
        await trio.sleep(5)
        assert len(scene.raft.hand_overs) == 1
        assert scene.raft.changes == []
        scene.raft.lead("b", ready=True)  # now the same controller is that of the successor
        await scene.decommission.leave(60.0)
    assert [one for _, one in scene.raft.changes] == [change(demote="a")]
