"""What is committed is shown, once and in order."""

from collections.abc import Sequence

import pytest

from noti.errors import CommandUnknown, MessageInvalid
from noti.history.commands import PublishBatch, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.history.notification import Event, Notification
from noti.history.selectors import SelectorKind
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.history.subscription_commands import EndSubscriber, SubscriptionBatch


class HistoryObserver:
    """Remembers what it was shown, and when it had to start anew."""

    def __init__(self) -> None:
        self.shown: list[int] = []
        self.resets: list[list[int]] = []
        self.disconnected: list[str | None] = []
        self.calls = 0
        self.oldest: int | None = None
        self.gone: list[int] = []

    def publish(self, notifications: Sequence[Notification]) -> None:
        self.calls += 1
        self.shown += [notification.seq for notification in notifications]

    def disconnect(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        subscriber: str | None = None,
    ) -> int:
        self.disconnected.append(subscriber)
        return 1

    def trim(self, oldest_seq: int, gone: Sequence[int]) -> None:
        self.oldest = oldest_seq
        self.gone += gone

    def reset(self, notifications: Sequence[Notification], oldest_seq: int) -> None:
        assert oldest_seq == 1
        self.resets.append([notification.seq for notification in notifications])


def batch(*source_seqs: int) -> bytes:
    events = tuple(Event(seq, f"id{seq}", ("t",), "data", 0) for seq in source_seqs)
    return encode(PublishBatch("jobs", events))


def made() -> tuple[HistoryStateMachine, Store, HistoryObserver]:
    store, audience = Store(), HistoryObserver()
    return HistoryStateMachine(store, audience), store, audience


def test_committed_batch_is_shown_at_once_as_one() -> None:
    state_machine, _, audience = made()
    state_machine.apply(batch(1, 2, 3))
    assert audience.shown == [1, 2, 3]
    assert audience.calls == 1


def test_repeated_batch_and_a_change_of_limits_show_nothing() -> None:
    state_machine, store, audience = made()
    state_machine.apply(batch(1, 2))
    state_machine.apply(batch(1, 2))
    state_machine.apply(encode(SetLimits(HistoryLimits(7))))
    assert audience.calls == 1
    assert store.limits.count == 7


def test_audience_learns_where_history_begins_also_when_only_the_limit_changes() -> None:
    state_machine, _, audience = made()
    state_machine.apply(batch(1, 2, 3, 4, 5))
    assert audience.oldest == 1
    state_machine.apply(encode(SetLimits(HistoryLimits(2))))
    assert audience.oldest == 4
    assert audience.gone == [1, 2, 3]
    state_machine.apply(encode(SetLimits(HistoryLimits(1000))))
    state_machine.apply(batch(6))
    assert audience.oldest == 4, "what is forgotten does not come back"


@pytest.mark.parametrize(
    ("command", "error"), [(b"\x91\x63", CommandUnknown), (b"\xc1", MessageInvalid)]
)
def test_command_that_cannot_be_understood_stops_before_anything_is_shown(
    command: bytes, error: type[Exception]
) -> None:
    state_machine, store, audience = made()
    before = store.digest()
    with pytest.raises(error):
        state_machine.apply(command)
    assert store.digest() == before
    assert audience.calls == 0


def test_restored_node_equals_the_one_that_was_saved_and_its_audience_starts_anew() -> None:
    original, store, _ = made()
    original.apply(batch(1, 2, 3))
    copy, copied_store, audience = made()
    copy.apply(batch(9))
    copy.restore(Store.decode(b"".join(original.snapshot_pieces())))
    assert copied_store.digest() == store.digest()
    assert audience.resets == [[1, 2, 3]]
    copy.apply(batch(3, 4))
    assert audience.shown == [1, 4], "what the snapshot held is not shown again"


def test_ended_subscriber_is_disconnected_and_that_is_told() -> None:
    state_machine, _, audience = made()
    news = (ActiveSubscription(SelectorKind.EXACT, "news"),)
    one = Subscriber("urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d", 0, news)
    state_machine.apply(encode(SubscriptionBatch("n1", "life", 1, 5, (one,), ())))
    assert audience.disconnected == []
    state_machine.apply(encode(EndSubscriber(one.id, 6)))
    state_machine.apply(encode(EndSubscriber(one.id, 7)))
    assert audience.disconnected == [one.id]
    assert audience.shown == [1, 2]
