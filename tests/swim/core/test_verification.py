"""Answers that prove something, and others."""

import random

import pytest

from noti.swim.core.events import PingByStream, SendPacket
from noti.swim.core.messages import Ack, Address, Alive, Ping
from noti.swim.core.outbox import Outbox
from noti.swim.core.packets import decode_packet
from noti.swim.core.timing import SwimConfig
from noti.swim.core.verification import Question, Verifier, is_same_host

THERE = ("10.0.0.2", 7946)
CLAIM = Alive(1, "n2", THERE, b"", bytes([1, 5, 2, 2, 5, 5]))


class Scene:
    """A verifier, and what it sends."""

    def __init__(self) -> None:
        config = SwimConfig.local()
        self.outbox = Outbox(config)
        self.verifier = Verifier(
            "n1", ("10.0.0.1", 7946), outbox=self.outbox, config=config, rng=random.Random(1)
        )

    def ask(self, now: float = 0.0) -> int:
        """Ask n2; return the sequence of the ping."""
        self.verifier.ask("n2", THERE, CLAIM, now)
        (effect,) = self.outbox.collect()
        assert isinstance(effect, SendPacket)
        assert effect.to == THERE
        claim, ping = decode_packet(effect.payload).messages
        assert claim == CLAIM
        assert isinstance(ping, Ping)
        return ping.sequence


def test_answer_with_the_sequence_of_a_question_is_a_proof_once() -> None:
    scene = Scene()
    answer = [Ack(scene.ask(), None)]
    assert scene.verifier.proofs(answer, THERE, 0.1) == [Question("n2", THERE, CLAIM, 0.0)]
    assert scene.verifier.proofs(answer, THERE, 0.1) == []


@pytest.mark.parametrize("source", [("10.9.9.9", 7946), ("10.0.0.1", 7946)])
def test_answer_from_another_host_proves_nothing_and_spoils_nothing(source: Address) -> None:
    scene = Scene()
    answer = [Ack(scene.ask(), None)]
    assert scene.verifier.proofs(answer, source, 0.1) == []
    assert scene.verifier.proofs(answer, ("10.0.0.2", 40000), 0.1), "behind NAT"


def test_sequence_of_one_question_tells_nothing_about_the_next() -> None:
    scene = Scene()
    sequences = [scene.ask() for _ in range(20)]
    guesses = [Ack(sequence + ahead, None) for sequence in sequences for ahead in range(1, 100)]
    assert scene.verifier.proofs(guesses, THERE, 0.1) == []


def test_answer_that_comes_much_later_proves_nothing() -> None:
    scene = Scene()
    answer = [Ack(scene.ask(), None)]
    assert scene.verifier.proofs(answer, THERE, 60.0) == []


def test_flood_of_questions_is_bounded_and_the_latest_count() -> None:
    scene = Scene()
    sequences = [scene.ask() for _ in range(3000)]
    answers = [Ack(sequence, None) for sequence in sequences]
    assert len(scene.verifier.proofs(answers, THERE, 0.1)) == 1024


def test_question_by_stream_is_proven_by_its_answer() -> None:
    scene = Scene()
    scene.verifier.ask_by_stream(CLAIM.node, CLAIM.address, CLAIM, 0.0)
    (order,) = scene.outbox.collect()
    assert isinstance(order, PingByStream)
    assert order.to == THERE
    assert scene.verifier.proof_by_stream(order.sequence + 1, 0.1) is None
    assert scene.verifier.proof_by_stream(order.sequence, 0.1) == Question("n2", THERE, CLAIM, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("fe80::1", "fe80:0::1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::1", False),
        ("memory", "10.0.0.1", False),
    ],
)
def test_a_host_is_the_same_however_its_address_is_written(
    one: str, other: str, same: bool
) -> None:
    assert is_same_host((one, 1), (other, 2)) is same
