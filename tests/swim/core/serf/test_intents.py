"""Who announced to join and to leave, and which announcement counts."""

import pytest

from noti.errors import MessageInvalid
from noti.swim.core.serf.intents import Broadcast, Intents, LeaveIntent
from noti.swim.core.serf.messages import Intent, decode_serf, encode_serf

NOW = 1000.0


def leave(node: str, time: int, *, prune: bool = False) -> Intent:
    return Intent(True, node, time, prune)


def join(node: str, time: int) -> Intent:
    return Intent(False, node, time)


def take(intents: Intents, intent: Intent, *, now: float = NOW, leaving: bool = False) -> list[str]:
    """What comes of an intent: what is passed on, announced, or left."""
    payload = encode_serf(intent)
    orders = intents.receive(intent, payload, now, leaving=leaving)
    shown: list[str] = []
    for order in orders:
        match order:
            case Broadcast():
                shown.append("passed on" if order.payload == payload else "announced")
            case LeaveIntent(name):
                shown.append(f"{name} leaves")
    return shown


def announced(order: object) -> Intent:
    assert isinstance(order, Broadcast)
    intent = decode_serf(order.payload)
    assert isinstance(intent, Intent)
    return intent


def knowing(*names: str) -> Intents:
    intents = Intents("a")
    for name in names:
        intents.on_joined(name)
    return intents


def test_own_intents_have_the_golden_form_and_rising_times() -> None:
    intents = Intents("beta")
    assert intents.join_intent().payload == bytes.fromhex(
        "01 82 a54c54696d65 01 a44e6f6465 a462657461"
    )
    assert intents.leave_intent().payload == bytes.fromhex(
        "00 83 a54c54696d65 02 a44e6f6465 a462657461 a55072756e65 c2"
    )
    assert intents.is_leaving("beta")


def test_newer_intent_is_passed_on_once_and_an_older_one_never() -> None:
    intents = knowing("b")
    assert take(intents, leave("b", 5)) == ["passed on", "b leaves"]
    assert take(intents, leave("b", 5)) == []
    assert take(intents, join("b", 4)) == []
    assert intents.is_leaving("b")
    assert take(intents, join("b", 6)) == ["passed on"]
    assert not intents.is_leaving("b")


def test_of_two_early_intents_the_newest_counts_when_the_node_appears() -> None:
    left_last, joined_last = Intents("a"), Intents("a")
    for intent in (join("b", 5), leave("b", 6), join("b", 4)):
        take(left_last, intent)
    for intent in (leave("b", 6), join("b", 7), leave("b", 5)):
        take(joined_last, intent)
    for intents in (left_last, joined_last):
        assert intents.times() == {"a": 0}
        intents.on_joined("b")
    assert left_last.is_leaving("b")
    assert left_last.times()["b"] == 6
    assert not joined_last.is_leaving("b")
    assert joined_last.times()["b"] == 7


def test_early_intent_is_forgotten_after_five_minutes() -> None:
    intents = Intents("a")
    take(intents, leave("b", 5))
    take(intents, join("c", 6), now=NOW + 299)
    assert intents.is_leaving("b")
    take(intents, join("c", 7), now=NOW + 301)
    intents.on_joined("b")
    assert not intents.is_leaving("b")


def test_known_member_that_returns_is_not_leaving_any_more() -> None:
    intents = knowing("b")
    take(intents, leave("b", 5))
    intents.on_joined("b")
    assert not intents.is_leaving("b")
    assert intents.left() == []
    assert take(intents, leave("b", 5)) == []


def test_two_intents_to_leave_do_not_echo_endlessly() -> None:
    one, two = knowing("c"), knowing("c")
    queue = [(two, leave("c", 5)), (one, leave("c", 6))]
    for _ in range(20):
        if not queue:
            break
        receiver, intent = queue.pop(0)
        other = one if receiver is two else two
        if "passed on" in take(receiver, intent):
            queue.append((other, intent))
    assert queue == []


def test_intents_about_a_forgotten_member_do_not_echo_either() -> None:
    intents = knowing("b")
    assert take(intents, leave("b", 5, prune=True)) == ["passed on", "b leaves"]
    intents.on_forgotten("b")
    assert take(intents, leave("b", 5, prune=True)) == []
    assert not intents.is_leaving("b")
    assert intents.times() == {"a": 0}


def test_intent_to_leave_in_our_name_is_refuted_with_a_newer_join() -> None:
    intents = Intents("a")
    intent = leave("a", 40)
    (refutation,) = intents.receive(intent, encode_serf(intent), NOW, leaving=False)
    assert announced(refutation) == join("a", 42)
    assert not intents.is_leaving("a")


def test_intent_to_leave_at_the_time_of_our_own_announcement_is_refuted_too() -> None:
    intents = Intents("a")
    ours = announced(intents.join_intent())
    assert take(intents, leave("a", ours.time)) == ["announced"]
    assert take(intents, leave("a", ours.time)) == []


def test_intent_to_leave_in_our_name_is_fine_while_we_leave() -> None:
    intents = Intents("a")
    intents.leave_intent()
    assert take(intents, leave("a", 40), leaving=True) == ["passed on", "a leaves"]


def test_forced_leave_is_announced_and_counts_here_and_of_ourselves_is_a_join() -> None:
    intents = knowing("b")
    announcement, order = intents.force_leave("b", NOW, prune=True)
    assert announced(announcement) == leave("b", 2, prune=True)
    assert order == LeaveIntent("b", prune=True)
    assert intents.is_leaving("b")
    (refutation,) = intents.force_leave("a", NOW, prune=False)
    assert announced(refutation) == join("a", 4)


def test_second_forced_leave_is_newer_also_for_who_has_the_first_from_a_state() -> None:
    one, two = knowing("b"), knowing("b")
    one.force_leave("b", NOW, prune=False)
    two.merge(one.times(), frozenset(one.left()), NOW, leaving=False)
    announcement, _ = one.force_leave("b", NOW, prune=True)
    assert take(two, announced(announcement)) == ["passed on", "b leaves"]


def test_refutation_is_newer_also_for_who_has_the_intent_from_a_state() -> None:
    one, two, three = Intents("a"), knowing("a"), knowing("a")
    forged = leave("a", 40)
    take(two, forged)
    three.merge(two.times(), frozenset(two.left()), NOW, leaving=False)
    (refutation,) = one.receive(forged, encode_serf(forged), NOW, leaving=False)
    for each in (two, three):
        take(each, announced(refutation))
        assert not each.is_leaving("a")


def test_state_brings_times_and_who_left() -> None:
    intents = knowing("b", "c")
    merged = intents.merge({"b": 3, "c": 4}, frozenset({"c"}), NOW, leaving=False)
    assert merged == [LeaveIntent("c")]
    assert intents.left() == ["c"]
    assert intents.times() == {"a": 0, "b": 3, "c": 5}


def test_states_that_tell_of_one_who_left_do_not_count_up_for_ever() -> None:
    one, two = knowing("c"), knowing("c")
    take(one, leave("c", 4))
    for _ in range(5):
        two.merge(one.times(), frozenset(one.left()), NOW, leaving=False)
        one.merge(two.times(), frozenset(two.left()), NOW, leaving=False)
    assert one.times()["c"] <= 5
    assert two.times()["c"] <= 5
    assert one.left() == two.left() == ["c"]


def test_state_that_claims_we_left_is_refuted() -> None:
    intents = Intents("a")
    (refutation,) = intents.merge({"a": 7}, frozenset({"a"}), NOW, leaving=False)
    assert announced(refutation) == join("a", 10)


def test_clock_cannot_be_exhausted_from_outside() -> None:
    intents = knowing("b")
    with pytest.raises(MessageInvalid):
        take(intents, join("b", 2**61))
    intents.merge({"b": 2**61}, frozenset(), NOW, leaving=False)
    assert intents.times()["b"] == 0


def test_invented_names_take_bounded_memory_and_members_keep_theirs() -> None:
    intents = knowing("b")
    take(intents, leave("b", 1))
    for number in range(3000):
        take(intents, leave(f"x{number}", 2))
    assert intents.is_leaving("b")
    assert sum(intents.is_leaving(f"x{number}") for number in range(3000)) == 1024
