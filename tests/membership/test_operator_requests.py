"""What a node does for its operator, and in whose words."""

from collections.abc import Mapping

import pytest
import trio

from noti.errors import MessageInvalid
from noti.membership.operator_requests import OperatorRequests, status_of
from noti.swim.core.messages import VERSIONS, Member, MemberState


class Gossip:
    """Stands for gossip."""

    def __init__(self, *members: Member) -> None:
        self._members = members

    def members(self) -> tuple[Member, ...]:
        return self._members


class Operator:
    """Asks, and keeps the answers."""

    def __init__(self, gossip: Gossip) -> None:
        self.answers: list[Mapping[str, object]] = []
        self.leaves: list[float] = []
        self._requests = OperatorRequests(self._leave, gossip)

    async def ask(self, request: object) -> list[Mapping[str, object]]:
        self.answers = []
        await self._requests.carry_out(request, self._take)
        return self.answers

    async def _leave(self, within_s: float) -> None:
        await trio.lowlevel.checkpoint()
        self.leaves.append(within_s)

    async def _take(self, answer: Mapping[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append(answer)


def member(
    state: MemberState = MemberState.ALIVE, *, name: str = "a", leaving: bool = False
) -> Member:
    address = ("10.0.0.1", 8401)
    return Member(name, address, {"id": "1", "a": "b"}, state, 7, VERSIONS, leaving)


async def test_order_to_leave_is_passed_on_with_its_seconds() -> None:
    operator = Operator(Gossip())
    assert await operator.ask({"leave_within_s": 7.5}) == []
    assert operator.leaves == [7.5]


async def test_every_member_is_told_with_all_that_serf_tells() -> None:
    told = await Operator(Gossip(member(), member(name="b"))).ask({"request": "members"})
    assert [one["name"] for one in told] == ["a", "b"]
    assert told[0] == {
        "name": "a",
        "host": "10.0.0.1",
        "port": 8401,
        "tags": {"a": "b", "id": "1"},
        "status": "alive",
        "state": "alive",
        "incarnation": 7,
        "protocol": {"min": 2, "max": 5, "version": 5},
    }


@pytest.mark.parametrize(
    ("state", "leaving", "status"),
    [
        (MemberState.ALIVE, False, "alive"),
        (MemberState.SUSPECT, False, "alive"),
        (MemberState.ALIVE, True, "leaving"),
        (MemberState.SUSPECT, True, "leaving"),
        (MemberState.DEAD, False, "failed"),
        (MemberState.LEFT, True, "left"),
    ],
)
def test_status_is_said_in_the_words_of_serf(
    state: MemberState, leaving: bool, status: str
) -> None:
    assert status_of(member(state, leaving=leaving)) == status


@pytest.mark.parametrize(
    "nonsense",
    [
        [],
        "members",
        {"request": "nonsense"},
        {"leave_within_s": -1},
        {"leave_within_s": True},
        {"leave_within_s": 1e99},
        {"leave_within_s": "5"},
    ],
)
async def test_request_that_this_version_does_not_know_is_rejected(nonsense: object) -> None:
    operator = Operator(Gossip())
    with pytest.raises(MessageInvalid, match="not a request"):
        await operator.ask(nonsense)
    assert not operator.leaves
