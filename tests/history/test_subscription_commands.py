"""Commands about subscriptions: what the log holds of them."""

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.history.selectors import SelectorKind
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.history.subscription_commands import (
    BATCH_SUBSCRIBERS_MAX,
    PAYLOAD_BYTES_MAX,
    EndNode,
    EndSubscriber,
    SubscriptionBatch,
    SubscriptionCommand,
    command_of,
    fields_of,
    is_payload,
    is_subscriber_id,
)

ID = "urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d"
OTHER_ID = "urn:uuid:00000000-0000-4000-8000-000000000001"
SUBSCRIPTIONS = tuple(
    ActiveSubscription(kind, f"text {kind.value}", payload)
    for kind, payload in zip(SelectorKind, ("", "7", '{"a":"ü"}', "null"), strict=True)
)
COMMANDS = [
    SubscriptionBatch("n1", "life", 1, 1_700_000_000_000, (), ()),
    SubscriptionBatch("n1", "life", 2, 5, (Subscriber(ID, 0, SUBSCRIPTIONS[:1]),), (OTHER_ID, ID)),
    SubscriptionBatch("n1", "life", 2, 5, (Subscriber(ID, 1, SUBSCRIPTIONS),), ()),
    EndNode("n1", "life", 7),
    EndSubscriber(ID, 8),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_command_comes_back_from_the_log(command: SubscriptionCommand) -> None:
    assert command_of(msgpack.unpackb(msgpack.packb(fields_of(command)))) == command


@pytest.mark.parametrize(
    "fields",
    [
        [20, "n1", "life", 0, 5, [], []],
        [20, "n1", "life", True, 5, [], []],
        [20, "n1", "life", 1, -5, [], []],
        [20, "n1", "life", 1, 5, [[ID, 0, []]], []],
        [20, "n1", "life", 1, 5, [[ID, 2, [[0, "a", ""]]]], []],
        [20, "n1", "life", 1, 5, [[ID, True, [[0, "a", ""]]]], []],
        [20, "n1", "life", 1, 5, [[ID, 0, [[4, "a", ""]]]], []],
        [20, "n1", "life", 1, 5, [[ID, 0, [[True, "a", ""]]]], []],
        [20, "n1", "life", 1, 5, [[ID, 0, [[0, "a", "{"]]]], []],
        [20, "n1", "life", 1, 5, [[ID, 0, [[0, "a", "[" * 100_000]]]], []],
        [20, "n1", "life", 1, 5, [["7", 0, [[0, "a", ""]]]], []],
        [20, "n1", "life", 1, 5, [], ["7"]],
        [20, "n1", "life", 1, 5, [], [ID] * (BATCH_SUBSCRIBERS_MAX + 1)],
        [20, "n1", "life", 1, 5, []],
        [21, "n1", "life", None],
        [21, "n1", 1, 7],
        [22, "urn:uuid:", 7],
        [22, ID],
    ],
    ids=str,
)
def test_what_no_node_wrote_is_invalid(fields: list[object]) -> None:
    with pytest.raises(MessageInvalid):
        command_of(fields)


def test_payload_is_json_of_bounded_length() -> None:
    assert is_payload('{"a": [1, null]}')
    assert not is_payload("{a}")
    assert is_payload('"' + "x" * (PAYLOAD_BYTES_MAX - 2) + '"')
    assert not is_payload('"' + "x" * (PAYLOAD_BYTES_MAX - 1) + '"')


def test_id_of_a_subscriber_is_a_uuid_in_lower_case() -> None:
    assert is_subscriber_id(ID)
    assert not is_subscriber_id(ID.upper())
    assert not is_subscriber_id(ID + "\n")
