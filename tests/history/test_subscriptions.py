"""The replicated table of subscriptions."""

import json
import random
import uuid
from collections.abc import Iterable, Sequence

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.history import subscriptions
from noti.history.notification import Event
from noti.history.selectors import SelectorKind
from noti.history.subscriber import ActiveSubscription, Subscriber, address
from noti.history.subscription_commands import EndNode, EndSubscriber, SubscriptionBatch
from noti.history.subscriptions import ENDED_AT_ONCE, SubscriptionTable

_rng = random.Random(7)


def subscriber(*texts: str, version: int = 0) -> Subscriber:
    id_ = uuid.UUID(int=_rng.getrandbits(128), version=4).urn
    chosen = tuple(ActiveSubscription(SelectorKind.EXACT, text) for text in texts or ("books",))
    return Subscriber(id_, version, chosen)


def batch(
    number: int,
    opened: Sequence[Subscriber] = (),
    closed: Sequence[Subscriber] = (),
    *,
    node: str = "n1",
    life: str = "first",
) -> SubscriptionBatch:
    return SubscriptionBatch(node, life, number, 5, tuple(opened), tuple(one.id for one in closed))


def told(events: Sequence[Event]) -> list[tuple[str, bool]]:
    shown = [json.loads(event.data) for event in events]
    return [(one.get("topic", one.get("match")), one["active"]) for one in shown]


def copy_of(table: SubscriptionTable) -> SubscriptionTable:
    return table_of(msgpack.unpackb(msgpack.packb([*table.fields()])))


def table_of(fields: Iterable[object]) -> SubscriptionTable:
    table = SubscriptionTable()
    for one in fields:
        table.add_fields(one)
    return table


def test_each_subscription_is_told_once_when_created_and_once_when_terminated() -> None:
    table, one = SubscriptionTable(), subscriber("books", "films")
    assert told(table.apply(batch(1, [one]))) == [("books", True), ("films", True)]
    assert (table.count, one.id in table) == (2, True)
    assert told(table.apply(batch(2, closed=[one]))) == [("books", False), ("films", False)]
    assert (table.count, table.size_bytes, one.id in table) == (0, 0, False)


def test_what_is_told_is_private_and_on_the_topic_of_its_subscription() -> None:
    table, one = SubscriptionTable(), subscriber("books")
    [event] = table.apply(batch(1, [one]))
    assert event.private
    assert event.topics == (address(one, one.subscriptions[0]),) == (json.loads(event.data)["id"],)


def test_only_1_0_has_a_type_of_event() -> None:
    table = SubscriptionTable()
    events = table.apply(batch(1, [subscriber("a"), subscriber("b", version=1)]))
    assert [event.type for event in events] == ["", "mercure"]


def test_copy_of_a_batch_changes_nothing_however_late() -> None:
    table, one = SubscriptionTable(), subscriber()
    first, second = batch(1, [one]), batch(2, closed=[one])
    table.apply(first)
    assert table.apply(first) == []
    table.apply(second)
    assert table.apply(first) == table.apply(second) == []
    assert one.id not in table


def test_batch_that_leaves_one_out_is_not_taken() -> None:
    table = SubscriptionTable()
    table.apply(batch(1))
    assert table.apply(batch(3, [subscriber()])) == []
    assert table.last_batch("n1") == ("first", 1)


def test_dead_node_loses_its_subscriptions_and_nobody_else_does() -> None:
    table, one, other = SubscriptionTable(), subscriber("a"), subscriber("b")
    table.apply(batch(1, [one]))
    table.apply(batch(1, [other], node="n2"))
    assert told(table.apply(EndNode("n1", "first", 6))) == [("a", False)]
    assert [s.id for s in table.subscribers()] == [other.id]
    assert table.lives() == {"n2": "first"}


def test_late_batch_of_a_life_that_is_over_leaves_no_ghost() -> None:
    table = SubscriptionTable()
    table.apply(batch(1))
    table.apply(EndNode("n1", "first", 6))
    assert table.apply(batch(2, [subscriber()])) == []
    table.apply(batch(1, life="second"))
    assert table.apply(batch(2, [subscriber()])) == []
    assert table.count == 0


def test_end_of_an_earlier_life_does_not_end_the_next() -> None:
    table, one = SubscriptionTable(), subscriber()
    table.apply(batch(1))
    table.apply(EndNode("n1", "first", 6))
    table.apply(batch(1, [one], life="second"))
    assert table.apply(EndNode("n1", "first", 7)) == []
    assert one.id in table


def test_node_begins_no_life_before_the_last_one_was_ended() -> None:
    table, ghost = SubscriptionTable(), subscriber()
    table.apply(batch(1, [ghost]))
    assert table.apply(batch(1, [subscriber()], life="second")) == []
    assert table.last_batch("n1") == ("first", 1)


def test_many_subscriptions_end_in_several_commands_and_none_comes_between() -> None:
    table = SubscriptionTable()
    table.apply(batch(1, [subscriber() for _ in range(ENDED_AT_ONCE + 1)]))
    end = EndNode("n1", "first", 6)
    assert len(table.apply(end)) == ENDED_AT_ONCE
    assert table.last_batch("n1") == ("first", 0)
    for number in (1, 2):
        assert table.apply(batch(number, [subscriber()])) == []
    assert len(table.apply(end)) == 1
    assert table.lives() == {}


def test_subscriber_can_be_ended_wherever_it_is() -> None:
    table, one = SubscriptionTable(), subscriber("a", "b")
    table.apply(batch(1, [one], node="n2"))
    assert told(table.apply(EndSubscriber(one.id, 6))) == [("a", False), ("b", False)]
    assert table.take_disconnected() == [one.id]
    assert table.apply(EndSubscriber(one.id, 7)) == []
    assert table.take_disconnected() == []
    assert table.apply(batch(2, closed=[one], node="n2")) == []


def test_node_cannot_close_what_another_one_opened() -> None:
    table, one = SubscriptionTable(), subscriber()
    table.apply(batch(1, [one]))
    assert table.apply(batch(1, closed=[one], node="n2")) == []
    assert one.id in table


def test_who_does_not_fit_is_left_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "SUBSCRIPTIONS_MAX", 3)
    table, large, small = SubscriptionTable(), subscriber("a", "b", "c", "d"), subscriber("a")
    assert told(table.apply(batch(1, [large, small]))) == [("a", True)]
    assert table.apply(batch(2, closed=[large])) == []


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "TABLE_BYTES_MAX", 1000)
    table = SubscriptionTable()
    assert table.apply(batch(1, [subscriber("a" * 2000)])) == []
    assert told(table.apply(batch(2, [subscriber("a")]))) == [("a", True)]


def test_closing_makes_room_for_what_opens_in_the_same_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriptions, "SUBSCRIPTIONS_MAX", 1)
    table, one, other = SubscriptionTable(), subscriber("a"), subscriber("b")
    table.apply(batch(1, [one]))
    assert told(table.apply(batch(2, [other], [one]))) == [("a", False), ("b", True)]


def test_ids_of_events_are_the_same_everywhere_and_never_twice() -> None:
    tables = [SubscriptionTable(), SubscriptionTable()]
    one = subscriber("a", "b")
    shown = [
        [
            event.id
            for command in (
                batch(1, [one]),
                EndNode("n1", "first", 6),
                batch(1, [one], life="second"),
                batch(2, [], [one], life="second"),
            )
            for event in table.apply(command)
        ]
        for table in tables
    ]
    assert shown[0] == shown[1]
    assert len(set(shown[0])) == 8
    assert all(uuid.UUID(event_id).urn == event_id for event_id in shown[0])


def test_table_comes_back_from_its_fields_in_the_same_order() -> None:
    table = SubscriptionTable()
    table.apply(batch(1, [subscriber("a"), subscriber("b", version=1)]))
    table.apply(batch(1, [subscriber("c")], node="n0"))
    table.apply(batch(2, [subscriber("d")]))
    restored = copy_of(table)
    assert restored == table
    assert [*restored.subscribers()] == [*table.subscribers()]
    assert restored.apply(EndNode("n1", "first", 6)) == table.apply(EndNode("n1", "first", 6))


@pytest.mark.parametrize(
    "fields",
    [
        [7],
        [["n1", "life", 1, []]],
        [["n1", "life", -1]],
        [["n1", "life", 1], ["n1", "life", 1]],
        [["n1", "life", 1], ["urn:uuid:7", 0, [[0, "a", ""]]]],
        [["urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d", 0, [[0, "a", ""]]]],
    ],
    ids=str,
)
def test_snapshot_that_no_node_wrote_is_invalid(fields: list[object]) -> None:
    with pytest.raises(MessageInvalid):
        table_of(fields)


def test_subscriber_that_is_twice_in_a_snapshot_is_invalid() -> None:
    table = SubscriptionTable()
    table.apply(batch(1, [subscriber()]))
    [node, one] = table.fields()
    with pytest.raises(MessageInvalid):
        table_of([node, one, ["n2", *node[1:]], one])


def test_what_was_told_is_counted_for_those_who_pace_themselves() -> None:
    table, one = SubscriptionTable(), subscriber("a", "b")
    table.apply(batch(1, [one]))
    table.apply(batch(1, [one]))
    table.apply(EndNode("n1", "first", 6))
    assert table.told == 4
