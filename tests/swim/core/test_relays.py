"""Probes for other members: acks and nacks, once each and in time."""

import random

import pytest

from noti.swim.core.events import SendPacket
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import VERSIONS, Ack, Address, Alive, IndirectPing, Message, Nack, Ping
from noti.swim.core.outbox import Outbox
from noti.swim.core.packets import decode_packet
from noti.swim.core.relays import Relays
from noti.swim.core.timing import SwimConfig

ASKER: Address = ("10.0.0.1", 1)
TARGET: Address = ("10.0.0.2", 1)
STRANGER: Address = ("203.0.113.9", 53)
TIMEOUT_S = 0.5


class Helper:
    """Relays that know the asker and the target."""

    def __init__(self) -> None:
        members = Members(random.Random(1), 30.0)
        for name, at in (("asker", ASKER), ("target", TARGET)):
            members.add(Record.of(Alive(1, name, at, b"", VERSIONS), {}, 0.0))
        self.outbox = Outbox(SwimConfig())
        self.relays = Relays(members, self.outbox, TIMEOUT_S)

    def ask(self, *, ours: int, theirs: int, nack: bool, to: Address = TARGET) -> None:
        request = IndirectPing(theirs, "target", to, nack, ASKER, "asker")
        self.relays.ask(request, ASKER, Ping(ours, "target", None, ""), 0.0)

    def sent(self) -> list[tuple[Address, Message]]:
        return [
            (each.to, message)
            for each in self.outbox.collect()
            if isinstance(each, SendPacket)
            for message in decode_packet(each.payload).messages
        ]


def test_answer_is_passed_on_once_under_the_askers_number() -> None:
    helper = Helper()
    helper.ask(ours=5, theirs=77, nack=True)
    assert helper.sent() == [(TARGET, Ping(5, "target", None, ""))]
    helper.relays.on_ack(6)
    helper.relays.on_ack(5)
    helper.relays.on_ack(5)
    assert helper.sent() == [(ASKER, Ack(77, None))]
    helper.relays.advance(TIMEOUT_S)
    assert helper.sent() == []


@pytest.mark.parametrize("wanted", [True, False])
def test_silence_is_told_before_the_askers_time_is_over_if_it_wants_that(wanted: bool) -> None:
    helper = Helper()
    helper.ask(ours=5, theirs=77, nack=wanted)
    helper.sent()
    at = helper.relays.deadline()
    assert 0 < at < TIMEOUT_S
    helper.relays.advance(at)
    assert helper.sent() == ([(ASKER, Nack(77))] if wanted else [])


def test_answer_after_the_nack_is_still_passed_on_and_one_after_its_time_is_not() -> None:
    helper = Helper()
    for ours in (5, 6):
        helper.ask(ours=ours, theirs=77, nack=False)
    helper.relays.advance(helper.relays.deadline())
    helper.sent()
    helper.relays.on_ack(5)
    assert helper.sent() == [(ASKER, Ack(77, None))]
    helper.relays.advance(helper.relays.deadline())
    helper.relays.on_ack(6)
    assert helper.sent() == []
    assert helper.relays.deadline() == float("inf")


def test_flood_of_requests_is_cut_off() -> None:
    helper = Helper()
    for number in range(1_000):
        helper.ask(ours=number, theirs=number, nack=True)
    assert len(helper.sent()) == 256


def test_unknown_address_gets_the_ping_and_no_gossip() -> None:
    helper = Helper()
    helper.outbox.broadcast("x", Alive(1, "x", ASKER, b"", VERSIONS))
    helper.ask(ours=5, theirs=77, nack=True, to=STRANGER)
    assert helper.sent() == [(STRANGER, Ping(5, "target", None, ""))]
