"""What this node's streams are, and what of them the cluster does not know yet."""

import random
import uuid

from hypothesis import given
from hypothesis import strategies as st

from noti.history.selectors import SelectorKind
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.presence.open_subscribers import BATCH_SUBSCRIPTIONS_MAX, OpenSubscribers

_rng = random.Random(7)


def subscriber(subscriptions: int = 1) -> Subscriber:
    id_ = uuid.UUID(int=_rng.getrandbits(128), version=4).urn
    texts = [f"topic {number}" for number in range(subscriptions)]
    return Subscriber(id_, 0, tuple(ActiveSubscription(SelectorKind.EXACT, t) for t in texts))


def test_stream_is_announced_once_and_then_its_end() -> None:
    streams, one = OpenSubscribers(), subscriber()
    streams.opened(1, one)
    assert streams.next_batch() == ((one,), ())
    assert not streams.any_news
    streams.closed(1)
    assert streams.next_batch() == ((), (one.id,))
    assert not streams.any_news


def test_stream_that_closes_before_it_was_announced_yields_nothing() -> None:
    streams = OpenSubscribers()
    streams.opened(1, subscriber())
    streams.closed(1)
    assert not streams.any_news
    assert streams.next_batch() == ((), ())


def test_end_of_an_unknown_stream_is_passed_over() -> None:
    streams = OpenSubscribers()
    streams.closed(7)
    assert not streams.any_news


def test_batch_is_bounded_by_subscriptions_and_the_rest_is_next() -> None:
    streams = OpenSubscribers()
    many = [subscriber(3) for _ in range(BATCH_SUBSCRIPTIONS_MAX)]
    for number, one in enumerate(many):
        streams.opened(number, one)
    announced: list[Subscriber] = []
    while streams.any_news:
        opened, _ = streams.next_batch()
        assert 0 < sum(len(one.subscriptions) for one in opened) <= BATCH_SUBSCRIPTIONS_MAX
        announced += opened
    assert announced == many


def test_subscriber_larger_than_a_batch_is_one_alone() -> None:
    streams, large, small = OpenSubscribers(), subscriber(BATCH_SUBSCRIPTIONS_MAX + 1), subscriber()
    streams.opened(1, large)
    streams.opened(2, small)
    assert streams.next_batch() == ((large,), ())
    assert streams.next_batch() == ((small,), ())


def test_all_that_is_open_is_announced_again_and_no_end_of_what_is_not() -> None:
    streams, one, other = OpenSubscribers(), subscriber(), subscriber()
    streams.opened(1, one)
    streams.opened(2, other)
    streams.next_batch()
    streams.closed(1)
    streams.announce_all_again()
    assert streams.next_batch() == ((other,), ())
    assert not streams.any_news


@given(st.lists(st.sampled_from(["open", "close", "batch", "again"]), max_size=40))
def test_cluster_that_gets_all_batches_knows_exactly_what_is_open(steps: list[str]) -> None:
    streams, known, is_open = OpenSubscribers(), set[str](), dict[int, str]()
    for number, step in enumerate([*steps, "batch"]):
        match step:
            case "open":
                one = subscriber()
                streams.opened(number, one)
                is_open[number] = one.id
            case "close" if is_open:
                stream = next(iter(is_open))
                streams.closed(stream)
                del is_open[stream]
            case "again":
                known.clear()
                streams.announce_all_again()
            case "batch":
                opened, closed = streams.next_batch()
                assert known.issuperset(closed), "ended before it was announced"
                assert known.isdisjoint(one.id for one in opened), "announced twice"
                known.difference_update(closed)
                known.update(one.id for one in opened)
            case _:
                pass  # nothing is open
    assert known == set(is_open.values())
