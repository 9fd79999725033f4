"""The queue of broadcasts: order, room, replacement, how often each is sent."""

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
