"""User events are taken once, passed on, and told to newcomers."""

import pytest

from noti.errors import MessageInvalid
from noti.swim.core.events import SendPacket, UserEventReceived
from noti.swim.core.messages import User
from noti.swim.core.outbox import Outbox
from noti.swim.core.packets import decode_packet
from noti.swim.core.serf.messages import UserEvent, encode_serf
from noti.swim.core.serf.user_events import UserEvents
from noti.swim.core.timing import SwimConfig

PLACE = ("127.0.0.1", 7946)


class Events:
    """User events of one node, and what comes of them."""

    def __init__(self) -> None:
        self.outbox = Outbox(SwimConfig())
        self.events = UserEvents(self.outbox)

    def receive(self, time: int, name: bytes, payload: bytes = b"") -> bool:
        """Whether an event was new, and then passed on."""
        event = UserEvent(time, name, payload)
        raw = encode_serf(event)
        self.events.receive(event, raw)
        new = self.outbox.collect()
        passed_on = raw in self.waiting()
        assert new == ([UserEventReceived(name.decode(), len(payload))] if passed_on else [])
        return passed_on

    def waiting(self) -> list[bytes]:
        """What waits to be broadcast, once."""
        payloads: list[bytes] = []
        while not self.outbox.idle:
            self.outbox.send(PLACE)
            for effect in self.outbox.collect():
                assert isinstance(effect, SendPacket)
                sent = decode_packet(effect.payload).messages
                payloads += [each.payload for each in sent if isinstance(each, User)]
        return payloads


def test_event_is_passed_on_once_and_so_is_another_of_the_same_time() -> None:
    node = Events()
    assert node.receive(5, b"deploy", b"1")
    assert not node.receive(5, b"deploy", b"1")
    assert node.receive(5, b"restart", b"1")
    assert node.receive(5, b"deploy", b"2")
    assert node.receive(6, b"deploy", b"1")


def test_old_event_is_dropped() -> None:
    node = Events()
    assert node.receive(1000, b"deploy")
    assert not node.receive(400, b"deploy")
    assert node.receive(600, b"deploy")


def test_own_event_comes_after_all_that_were_seen_and_is_not_taken_back() -> None:
    node = Events()
    node.receive(7, b"deploy")
    node.events.send(b"mine", b"x", coalesce=False)
    mine = UserEvent(8, b"mine", b"x", coalesce=False)
    assert encode_serf(mine) in node.waiting()
    node.events.receive(mine, encode_serf(mine))
    assert node.waiting() == []


def test_newcomer_ignores_what_happened_before_it_came() -> None:
    node = Events()
    node.events.merge(8, (UserEvent(7, b"old", b""),), ignore_old=True)
    assert node.outbox.collect() == []
    assert not node.receive(6, b"late")
    assert node.receive(8, b"new")


def test_member_takes_from_a_state_what_it_missed_and_tells_it_to_others() -> None:
    node, other = Events(), Events()
    node.receive(3, b"a")
    other.receive(3, b"a")
    other.receive(4, b"b", b"x")
    node.events.merge(other.events.clock.time, other.events.recent(), ignore_old=False)
    assert node.outbox.collect() == [UserEventReceived("b", 1)]
    assert [event.name for event in node.events.recent()] == [b"a", b"b"]
    assert node.events.clock.time == 5


def test_event_far_ahead_is_rejected_alone_and_left_out_of_a_state() -> None:
    node = Events()
    with pytest.raises(MessageInvalid):
        node.receive(2**40, b"x")
    node.events.merge(2, (UserEvent(2**40, b"x", b""), UserEvent(1, b"y", b"")), ignore_old=False)
    assert [event.name for event in node.events.recent()] == [b"y"]


def test_flood_of_events_takes_bounded_memory() -> None:
    node = Events()
    for number in range(5000):
        event = UserEvent(1 + number // 100, b"%d" % number, b"")
        node.events.receive(event, encode_serf(event))
    assert len(node.events.recent()) <= 512
    node.outbox.collect()
    assert len(set(node.waiting())) <= 1024
