"""Promises of the node as its web worker sees it."""

import socket

import trio
import trio.testing

from noti.errors import NotLeader, Overloaded, ProposalUncertain
from noti.web_workers.link import Link
from noti.web_workers.messages import Answered, Message, NodeState, Read, Submit, WaitNews
from noti.web_workers.node_link import NodeLink


class Side:
    """A worker's end of a link, and what the node was told on the other."""

    def __init__(self) -> None:
        self.sockets = socket.socketpair()
        ours, theirs = (
            trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in self.sockets
        )
        self.link, self.other = Link(ours), Link(theirs)
        self.node = NodeLink(self.link)
        self.said: list[Message] = []

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.run, self._take)
            nursery.start_soon(self.other.run, self.said.append)
            task_status.started()

    def _take(self, message: Message) -> None:
        assert isinstance(message, Answered | NodeState)
        self.node.take(message)

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()

    def close(self) -> None:
        for one in self.sockets:
            one.close()


async def test_commands_are_answered_one_by_one_by_number() -> None:
    side, outcomes = Side(), list[object]()
    async with trio.open_nursery() as nursery:
        await nursery.start(side.run)
        for command in (b"a", b"b", b"c", b"d"):
            side.node.submit(command, outcomes.append)
        await side.settle()
        assert [one.command for one in side.said if isinstance(one, Submit)] == [
            b"a",
            b"b",
            b"c",
            b"d",
        ]
        errors = ["", "NotLeader", "Overloaded", "ProposalUncertain"]
        numbers = [one.number for one in side.said if isinstance(one, Submit)]
        for number, error in zip(numbers, errors, strict=True):
            side.other.send(Answered(number, 7, error, "why"))
        await side.settle()
        nursery.cancel_scope.cancel()
    side.close()
    assert outcomes[0] == 7
    assert [type(one) for one in outcomes[1:]] == [NotLeader, Overloaded, ProposalUncertain]


async def test_a_proposal_waits_for_a_leader() -> None:
    side = Side()
    async with trio.open_nursery() as nursery:
        await nursery.start(side.run)
        nursery.start_soon(side.node.propose, b"a")
        await side.settle()
        side.other.send(Answered(1, 0, "NotLeader", ""))
        await side.settle()
        assert side.said[1:] == [WaitNews(2)]
        side.other.send(Answered(2, 0, "", ""))
        await side.settle()
        assert side.said[2:] == [Submit(3, b"a")]
        side.other.send(Answered(3, 9, "", ""))
        await side.settle()
        nursery.cancel_scope.cancel()
    side.close()


async def test_it_is_as_the_node_says_and_not_ready_before() -> None:
    side = Side()
    assert not side.node.ready()
    async with trio.open_nursery() as nursery:
        await nursery.start(side.run)
        side.other.send(NodeState(ready=True, leads=True))
        await side.settle()
        assert side.node.ready()
        assert side.node.is_leader()
        nursery.start_soon(side.node.barrier)
        await side.settle()
        assert side.said == [Read(1)]
        side.other.send(Answered(1, 0, "", ""))
        await side.settle()
        nursery.cancel_scope.cancel()
    side.close()


async def test_what_was_asked_of_a_node_that_is_gone_may_or_may_not_be_done() -> None:
    side, outcomes = Side(), list[object]()
    side.node.submit(b"a", outcomes.append)
    side.node.lost()
    assert [type(one) for one in outcomes] == [ProposalUncertain]
    side.close()
