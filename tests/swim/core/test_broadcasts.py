"""The queue of broadcasts: order, room, replacement, how often each is sent."""

import random
from dataclasses import dataclass

import pytest

from noti.swim.core.broadcasts import BroadcastQueue, retransmit_limit


def take(queue: BroadcastQueue, room_bytes: int = 1400, sends_max: int = 3) -> list[bytes]:
    return queue.take(room_bytes, 2, 255, sends_max)


@pytest.mark.parametrize(("members", "limit"), [(0, 0), (1, 3), (9, 3), (10, 6), (99, 6)])
def test_limit_counts_decimal_digits(members: int, limit: int) -> None:
    assert retransmit_limit(3, members) == limit


def test_least_sent_goes_first_then_longest_then_newest() -> None:
    queue = BroadcastQueue()
    queue.put("a", b"sent before, and longest")
    assert take(queue) == [b"sent before, and longest"]
    queue.put("b", b"older")
    queue.put("c", b"newer")
    queue.put("d", b"longer")
    assert take(queue) == [b"longer", b"newer", b"older", b"sent before, and longest"]


def test_news_about_a_node_replaces_older_news() -> None:
    queue = BroadcastQueue()
    queue.put("a", b"suspect")
    take(queue)
    queue.put("a", b"alive")
    assert take(queue) == [b"alive"]


def test_message_is_sent_as_often_as_the_limit_allows() -> None:
    queue = BroadcastQueue()
    queue.put("a", b"x")
    assert [take(queue, sends_max=3) for _ in range(4)] == [[b"x"], [b"x"], [b"x"], []]
    assert len(queue) == 0
    assert "a" not in queue


def test_room_is_never_exceeded_and_smaller_messages_fill_it() -> None:
    queue = BroadcastQueue()
    queue.put("a", bytes(50))
    queue.put("b", bytes(40))
    queue.put("c", bytes(6))
    assert take(queue, room_bytes=60) == [bytes(50), bytes(6)]
    assert take(queue, room_bytes=41) == [bytes(6)]
    assert take(queue, room_bytes=42) == [bytes(40)]


def test_no_more_messages_are_taken_than_a_packet_has_parts() -> None:
    queue = BroadcastQueue()
    for number in range(300):
        queue.put(str(number), b"")
    assert len(queue.take(10_000, 2, 255, 3)) == 255


def test_full_queue_drops_what_was_sent_most() -> None:
    queue = BroadcastQueue(count_max=2)
    queue.put("old", b"old")
    take(queue)
    queue.put("b", b"b")
    queue.put("c", b"c")
    assert "old" not in queue
    assert len(queue) == 2


def test_news_about_a_node_that_was_dropped_or_replaced_does_not_come_back() -> None:
    queue = BroadcastQueue()
    queue.put("a", b"old")
    queue.put("a", b"new")
    queue.put("b", b"b")
    assert take(queue, sends_max=1) == [b"new", b"b"]
    assert take(queue, sends_max=1) == []


@dataclass
class Waiting:
    """A broadcast, in the model that sorts them all for each packet."""

    message: bytes
    number: int
    sent: int = 0


def take_by_sorting(
    waiting: dict[str, Waiting], room_bytes: int, each_bytes: int, count_max: int, sends_max: int
) -> list[bytes]:
    taken: list[bytes] = []
    for key, each in sorted(
        waiting.items(), key=lambda item: (item[1].sent, -len(item[1].message), -item[1].number)
    ):
        cost = len(each.message) + each_bytes
        if len(taken) < count_max and cost <= room_bytes:
            room_bytes -= cost
            each.sent += 1
            taken.append(each.message)
            if each.sent >= sends_max:
                del waiting[key]
    return taken


@pytest.mark.parametrize("seed", range(5))
def test_packets_are_those_that_sorting_everything_would_give(seed: int) -> None:
    rng = random.Random(seed)
    queue, model = BroadcastQueue(), dict[str, Waiting]()
    for number in range(3_000):
        if rng.random() < 0.6:
            key, message = f"n{rng.randrange(60)}", rng.randbytes(rng.randrange(120))
            queue.put(key, message)
            model[key] = Waiting(message, number)
        else:
            room_bytes, count_max = rng.randrange(600), rng.choice([2, 255])
            assert queue.take(room_bytes, 2, count_max, 3) == take_by_sorting(
                model, room_bytes, 2, count_max, 3
            )
        assert len(queue) == len(model)
