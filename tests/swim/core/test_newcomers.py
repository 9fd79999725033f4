"""Claims wait until the address that they name answers; floods of them harm no true one."""

import math
import random
from dataclasses import replace

from noti.swim.core.events import Effect, PingByStream, SendPacket
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import VERSIONS, Address, Alive, IndirectPing, Ping
from noti.swim.core.newcomers import Backing, Newcomers
from noti.swim.core.outbox import Outbox
from noti.swim.core.packets import decode_packet
from noti.swim.core.timing import SwimConfig
from noti.swim.core.verification import Verifier

THERE = ("10.0.0.2", 7946)


class Scene:
    """Newcomers, and whom they have asked."""

    def __init__(self, unacked_max: int = 10) -> None:
        self.config = replace(SwimConfig.local(), unacked_max=unacked_max)
        self.outbox = Outbox(self.config)
        verifier = Verifier(
            "n1",
            ("10.0.0.1", 1),
            outbox=self.outbox,
            config=self.config,
            rng=random.Random(1),
        )
        self.members = Members(random.Random(1), 30.0)
        for number, name in enumerate(("n1", "n2", "n5", "n6"), 1):
            there = (f"10.0.0.{number}", 7946)
            self.members.add(Record.of(claim(name, at=there), {}, 0.0))
        self.newcomers = Newcomers(
            "n1", members=self.members, verifier=verifier, config=self.config
        )

    def asked(self) -> list[str]:
        """Whom it has pinged since the last call."""
        return [
            message.target
            for effect in self.outbox.collect()
            if isinstance(effect, SendPacket)
            for message in decode_packet(effect.payload).messages
            if isinstance(message, Ping)
        ]


def claim(name: str, incarnation: int = 1, at: Address = THERE) -> Alive:
    return Alive(incarnation, name, at, b"", VERSIONS)


def test_silent_newcomer_is_asked_a_few_times_and_forgotten() -> None:
    scene = Scene()
    assert scene.newcomers.add(claim("n2"), Backing.HEARSAY, 0.0)
    asked = scene.asked()
    while scene.newcomers:
        scene.newcomers.advance(scene.newcomers.deadline())
        asked += scene.asked()
    assert asked == ["n2"] * 4
    assert scene.newcomers.deadline() == float("inf")


def test_one_claim_however_often_it_is_made_costs_its_address_a_few_packets() -> None:
    scene = Scene()
    for incarnation in range(3000):
        assert scene.newcomers.add(claim("n2", incarnation), Backing.HEARSAY, 0.0)
    assert scene.asked() == ["n2"]


def test_newer_claim_is_the_one_that_is_asked_next() -> None:
    scene = Scene()
    scene.newcomers.add(claim("n2", 1), Backing.HEARSAY, 0.0)
    scene.newcomers.add(claim("n2", 5), Backing.HEARSAY, 0.0)
    scene.newcomers.add(claim("n2", 3), Backing.HEARSAY, 0.0)
    scene.outbox.collect()
    scene.newcomers.advance(scene.newcomers.deadline())
    (packet,) = scene.outbox.collect()
    assert isinstance(packet, SendPacket)
    assert decode_packet(packet.payload).messages[0] == claim("n2", 5)


def test_claim_of_a_name_elsewhere_keeps_nobody_from_being_asked() -> None:
    scene = Scene()
    scene.newcomers.add(claim("n2", 99, ("10.9.9.9", 1)), Backing.HEARSAY, 0.0)
    scene.newcomers.add(claim("n2", 1), Backing.HEARSAY, 0.0)
    assert scene.asked() == ["n2", "n2"]


def test_flood_is_bounded_and_each_has_time_to_answer() -> None:
    scene = Scene(unacked_max=10)
    taken = [
        scene.newcomers.add(claim(f"x{each}"), Backing.HEARSAY, each / 1e5) for each in range(3000)
    ]
    assert taken.count(True) == len(scene.newcomers) == 10
    later = 2 * scene.config.probe_timeout_s
    assert scene.newcomers.add(claim("n2"), Backing.HEARSAY, later)
    assert len(scene.newcomers) == 10


def test_who_introduces_itself_over_tcp_waits_for_no_flood() -> None:
    scene = Scene(unacked_max=10)
    for each in range(100):
        scene.newcomers.add(claim(f"x{each}"), Backing.HEARSAY, 0.0)
    assert scene.newcomers.add(claim("n2"), Backing.INTRODUCED, 0.0)
    for each in range(100):
        scene.newcomers.add(claim(f"y{each}"), Backing.HEARSAY, 10.0)
    waiting = len(scene.newcomers)
    scene.newcomers.discard("n2", THERE)
    assert len(scene.newcomers) == waiting - 1, "it was still waiting"


def test_host_that_introduces_a_flood_is_treated_as_one_that_is_heard_of() -> None:
    scene = Scene(unacked_max=100)
    for each in range(100):
        scene.newcomers.add(claim(f"x{each}"), Backing.INTRODUCED, 0.0)
    other = ("10.0.0.3", 1)
    assert scene.newcomers.add(claim("n3", at=other), Backing.INTRODUCED, 0.0)
    assert len(scene.newcomers) == 100


def test_only_who_introduced_itself_is_asked_over_tcp_and_only_after_udp() -> None:
    scene = Scene()
    scene.newcomers.add(claim("n2"), Backing.HEARSAY, 0.0)
    scene.newcomers.add(claim("n3"), Backing.INTRODUCED, 0.0)
    dialled = []
    while scene.newcomers:
        scene.newcomers.advance(scene.newcomers.deadline())
        dialled += [e.node for e in scene.outbox.collect() if isinstance(e, PingByStream)]
    assert dialled == ["n3"]


def test_who_has_answered_is_no_newcomer_any_more() -> None:
    scene = Scene()
    scene.newcomers.add(claim("n2"), Backing.HEARSAY, 0.0)
    scene.newcomers.discard("n2", THERE)
    scene.newcomers.discard("n2", THERE)
    assert not scene.newcomers


def test_about_a_known_member_others_are_asked_as_well_and_no_flood_displaces_it() -> None:
    scene = Scene(unacked_max=10)
    for each in range(100):
        scene.newcomers.add(claim(f"x{each}"), Backing.HEARSAY, 0.0)
    assert scene.newcomers.add(claim("n2"), Backing.KNOWN, 0.0)
    orders: list[Effect] = []
    while scene.newcomers:
        scene.newcomers.advance(scene.newcomers.deadline())
        orders += scene.outbox.collect()
    assert [each.node for each in orders if isinstance(each, PingByStream)] == ["n2"]
    asked = [
        message.target
        for each in orders
        if isinstance(each, SendPacket) and each.to != THERE
        for message in decode_packet(each.payload).messages
        if isinstance(message, IndirectPing)
    ]
    assert asked == ["n2"] * scene.config.indirect_checks


def test_next_question_is_due_when_the_first_has_had_its_time() -> None:
    scene = Scene()
    assert scene.newcomers.deadline() == math.inf
    scene.newcomers.add(claim("n2"), Backing.HEARSAY, 1.0)
    scene.newcomers.add(claim("n3"), Backing.HEARSAY, 1.1)
    first_at = 1.0 + scene.config.probe_timeout_s
    assert scene.newcomers.deadline() == first_at
    scene.asked()
    scene.newcomers.advance(first_at)
    assert scene.asked() == ["n2"]
    assert scene.newcomers.deadline() == 1.1 + scene.config.probe_timeout_s
    for name in ("n2", "n3"):
        scene.newcomers.discard(name, THERE)
    scene.newcomers.advance(scene.newcomers.deadline())
    assert scene.newcomers.deadline() == math.inf
