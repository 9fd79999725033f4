"""Promises of limits that hold for all web workers together."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noti.web_workers.shared_limits import Allowances, ClientTable

WORKERS = 3


class Plant:
    """Workers that open and close streams, and the messages on their way."""

    def __init__(self, streams_max: int) -> None:
        self.allowances = Allowances(streams_max, WORKERS)
        self.streams_max = streams_max
        self.clients = dict.fromkeys(range(1, WORKERS + 1), 0)
        self.allowed = dict.fromkeys(self.clients, 0)
        self.told: dict[int, deque[int]] = {number: deque() for number in self.clients}
        self.said: dict[int, deque[tuple[int, int]]] = {number: deque() for number in self.clients}
        for number in self.clients:
            self.begin(number)

    def begin(self, number: int) -> None:
        self.told[number].append(self.allowances.began(number))

    def step(self, what: str, number: int) -> None:
        match what:
            case "open" if self.clients[number] < self.allowed[number]:
                self.clients[number] += 1
            case "close" if self.clients[number]:
                self.clients[number] -= 1
            case "listen" if self.told[number]:
                self.allowed[number] = self.told[number].popleft()
            case "say":
                self.said[number].append((self.clients[number], self.allowed[number]))
            case "hear" if self.said[number]:
                self.allowances.reported(number, *self.said[number].popleft())
                self.spread()
            case "die":
                self.clients[number] = self.allowed[number] = 0
                self.told[number].clear()
                self.said[number].clear()
                self.allowances.ended(number)
                self.spread()
                self.begin(number)
            case _:
                pass

    def spread(self) -> None:
        for number, streams in self.allowances.changes().items():
            self.told[number].append(streams)

    def settle(self) -> None:
        for _ in range(10):
            for what in ("listen", "say", "hear", "listen"):
                for number in self.clients:
                    while self.told[number] and what == "listen":
                        self.step(what, number)
                    while self.said[number] and what == "hear":
                        self.step(what, number)
                    self.step(what, number)


STEPS = st.tuples(
    st.sampled_from(["open", "open", "open", "close", "listen", "say", "hear", "die"]),
    st.integers(1, WORKERS),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=100), st.integers(1, 20), st.integers(1, 20))
def test_other_limit_holds_as_soon_as_workers_know_and_streams_have_ended(
    steps: list[tuple[str, int]], before: int, after: int
) -> None:
    plant = Plant(before)
    for what, number in steps:
        plant.step(what, number)
    plant.allowances.resize(after)
    plant.spread()
    plant.settle()
    for number in plant.clients:
        while plant.clients[number] and sum(plant.clients.values()) > after:
            plant.step("close", number)
    plant.settle()
    assert sum(plant.clients.values()) <= sum(plant.allowed.values()) <= after
    plant.streams_max = after
    for number in plant.clients:
        while plant.clients[number]:
            plant.step("close", number)
    plant.settle()
    assert sum(plant.allowed.values()) == after


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=200), st.integers(1, 20))
def test_there_are_never_more_streams_than_the_node_may_have_and_all_may_be_used(
    steps: list[tuple[str, int]], streams_max: int
) -> None:
    plant = Plant(streams_max)
    for what, number in steps:
        plant.step(what, number)
        assert sum(plant.clients.values()) <= streams_max
    plant.settle()
    assert sum(plant.allowed.values()) == streams_max
    free = streams_max - sum(plant.clients.values())
    for number, clients in plant.clients.items():
        room = plant.allowed[number] - clients
        assert room >= free // WORKERS // 2, "each has room, if there is any"


def test_little_is_said_while_all_have_room() -> None:
    allowances = Allowances(50_000, 2)
    for clients in range(0, 12_000, 100):
        allowances.reported(1, clients, 25_000)
        assert allowances.changes() == {}
    allowances.reported(1, 17_000, 25_000)
    assert allowances.changes() == {2: 16_500}
    allowances.reported(2, 0, 16_500)
    assert allowances.changes() == {1: 33_500}


def test_clients_are_added_up_over_workers_and_those_of_one_that_ended_are_gone() -> None:
    table = ClientTable()
    table.reported(1, {"a": 2, "b": 1})
    table.reported(2, {"a": 3})
    assert table.elsewhere(1, ["a", "b", "c"]) == {"a": 3, "b": 0, "c": 0}
    assert table.elsewhere(3, table.clients()) == {"a": 5, "b": 1}
    table.reported(1, {"a": 1})
    assert table.elsewhere(2, ["a"]) == {"a": 1}
    assert sorted(table.ended(1)) == ["a", "b"]
    assert table.elsewhere(3, table.clients()) == {"a": 3}
    assert table.ended(3) == []


@pytest.mark.parametrize("streams_max", [1, 2, 7])
def test_a_small_limit_is_shared_too(streams_max: int) -> None:
    plant = Plant(streams_max)
    plant.settle()
    assert sum(plant.allowed.values()) == streams_max
