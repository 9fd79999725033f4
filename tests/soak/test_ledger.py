import random

import pytest

from tests.soak.ledger import (
    HTTP,
    JETSTREAM,
    NEWCOMER,
    RPC,
    Ledger,
    first_with_id,
    http_id,
    is_private,
    key_of,
)

EVENTS = [key_of(n % 2, n) for n in range(1, 200)]


def counts(ledger: Ledger) -> tuple[int, int, int]:
    return ledger.lost, ledger.twice, ledger.disorder


def read(ledger: Ledger, who: str, events: list[int], rng: random.Random, place: int = 0) -> int:
    """See events in pieces of any length."""
    while events:
        size = rng.randint(1, 7)
        place = ledger.see(who, place, events[:size])
        events = events[size:]
    return place


@pytest.fixture
def ledger() -> Ledger:
    there = Ledger()
    there.see("the first", 0, EVENTS)
    return there


@pytest.mark.parametrize("seed", range(20))
def test_browsers_that_see_all_in_one_order_are_right_however_it_is_cut(seed: int) -> None:
    rng, ledger = random.Random(seed), Ledger()
    places = [0, 0, 0]
    while min(places) < len(EVENTS):
        who = rng.randrange(3)
        piece = EVENTS[places[who] : places[who] + rng.randint(0, 9)]
        places[who] = ledger.see(str(who), places[who], piece)
    assert counts(ledger) == (0, 0, 0)
    assert ledger.order == EVENTS


@pytest.mark.parametrize("seed", range(20))
def test_one_lost_event_is_found(ledger: Ledger, seed: int) -> None:
    rng = random.Random(seed)
    gone = rng.randrange(len(EVENTS) - 1)
    read(ledger, "b", EVENTS[:gone] + EVENTS[gone + 1 :], rng)
    assert counts(ledger) == (1, 0, 0)
    assert ledger.examples


def test_lost_event_is_found_when_what_follows_is_new_to_everybody(ledger: Ledger) -> None:
    place = ledger.see("b", 0, EVENTS[:-3])
    ledger.see("b", place, [key_of(RPC, 999)])
    assert counts(ledger) == (3, 0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_one_event_seen_twice_is_found(ledger: Ledger, seed: int) -> None:
    rng = random.Random(seed)
    again = rng.randrange(len(EVENTS))
    read(ledger, "b", EVENTS[: again + 1] + EVENTS[again:], rng)
    assert counts(ledger) == (0, 1, 0)


def test_event_that_all_see_twice_is_found() -> None:
    ledger = Ledger()
    for who in ("a", "b"):
        ledger.see(who, 0, [*EVENTS, EVENTS[5]])
    assert counts(ledger) == (0, 2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_two_events_in_the_wrong_order_are_found(ledger: Ledger, seed: int) -> None:
    rng = random.Random(seed)
    at = rng.randrange(len(EVENTS) - 2)
    turned = [*EVENTS[:at], EVENTS[at + 1], EVENTS[at], *EVENTS[at + 2 :]]
    read(ledger, "b", turned, rng)
    assert counts(ledger) == (0, 0, 1)


def test_newcomer_may_begin_anywhere_and_is_held_to_the_order_from_there(ledger: Ledger) -> None:
    assert ledger.see("b", NEWCOMER, EVENTS[50:60]) == 60
    assert counts(ledger) == (0, 0, 0)
    ledger.see("b", 60, EVENTS[61:])
    assert counts(ledger) == (1, 0, 0)


def test_acknowledged_event_that_nobody_saw_is_missing() -> None:
    ledger = Ledger()
    ledger.see("a", 0, [key_of(JETSTREAM, 1), key_of(RPC, 1), key_of(JETSTREAM, 3)])
    assert ledger.missing([3, 2, 0]) == [key_of(JETSTREAM, 2), key_of(RPC, 2)]
    assert ledger.missing([1, 1, 0]) == []


def test_private_event_is_missing_only_to_those_who_may_see_it() -> None:
    ledger = Ledger()
    keys = [key_of(HTTP, number) for number in range(1, 11)]
    ledger.see("a", 0, [key for key in keys if not is_private(key)])
    assert ledger.missing([0, 0, 10], public=True) == []
    assert ledger.missing([0, 0, 10]) == [key_of(HTTP, number) for number in (1, 8, 9)]


def test_browser_resumes_after_the_earliest_event_that_has_its_last_id(ledger: Ledger) -> None:
    ledger = Ledger()
    keys = [key_of(HTTP, number) for number in range(1, 8)]
    place = ledger.see("a", 0, keys)
    first = first_with_id("abc", http_id("abc", 7))
    assert first == key_of(HTTP, 6)
    assert ledger.resume_at(place, first) == 6
    assert ledger.see("a", 6, [key_of(HTTP, 7)]) == 7
    assert counts(ledger) == (0, 0, 0)
    assert first_with_id("abc", "earliest") is None
    assert first_with_id("abc", "abc-r7") is None


def test_what_a_reported_gap_skips_is_not_lost_and_what_comes_again_after_it_is_seen_twice(
    ledger: Ledger,
) -> None:
    place = ledger.see("b", 0, EVENTS[:10])
    assert ledger.after_gap(place, key_of(RPC, 999)) is None
    after = ledger.after_gap(place, EVENTS[60])
    assert after is not None
    place = ledger.see("b", after, EVENTS[60:70])
    assert counts(ledger) == (0, 0, 0)
    assert ledger.after_gap(place, EVENTS[65]) == place
    ledger.see("b", place, EVENTS[65:70])
    assert counts(ledger) == (0, 5, 0)
