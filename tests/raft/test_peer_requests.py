"""Whose requests a leader takes from its peers, and how many answers wait for them."""

import random

import trio.testing
from prometheus_client import REGISTRY

from noti.errors import PeerUnavailable
from noti.raft.core.messages import DemotionRequest, Forward, ForwardAnswer, ForwardOutcome
from noti.raft.peers import OUTBOX_BYTES_MAX, REQUEST_BYTES, Peers
from noti.trio_clock import TrioClock
from tests import promises
from tests.raft.test_peers import Machine, connected, scripted, the_hub, word


def rejected(reason: str) -> float:
    labels = {"reason": reason}
    return REGISTRY.get_sample_value("noti_raft_messages_rejected_total", labels) or 0.0


async def test_answers_beyond_the_bytes_of_an_outbox_are_not_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outcomes = tuple((n, ForwardOutcome.DONE, 7) for n in range(4096))
    fit = OUTBOX_BYTES_MAX // (REQUEST_BYTES * len(outcomes))
    async with connected() as (a, _):
        taken = [a.peers.send("b", ForwardAnswer("a", 0, outcomes)) for _ in range(2 * fit)]
        assert taken == [True] * fit + [False] * fit
        assert not a.peers.send("b", Forward("a", 0, (), (1,))), "and so are requests"
        assert a.peers.send("b", word("a"))


@promises.PEER_NONSENSE_SURVIVED
async def test_stranger_is_neither_answered_nor_obeyed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Machine(the_hub(), "a")
    peers = Peers(
        machine.network,
        machine.hello,
        machine,
        TrioClock(),
        random.Random(1),
        is_member=lambda node: node == "b",
    )
    before = rejected("stranger")
    for name in ("b", "stranger"):
        asked = (Forward(name, 0, ((1, b"x"),), (2,)), DemotionRequest(name, 0))
        answer = ForwardAnswer(name, 0, ((1, ForwardOutcome.DONE, 7),))
        stream = scripted(name)
        stream.says([*asked, answer], PeerUnavailable("it is gone"))
        await peers.serve(stream)
        heard = [message for what, message in machine.diary if what == "forwarded"]
        # Who was asked may be no member here yet: the log of a node that joins is empty.
        assert heard == ([*asked, answer] if name == "b" else [answer])
        machine.diary.clear()
    assert rejected("stranger") == before + 2
