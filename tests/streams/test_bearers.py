"""Promises of the index of streams by their tokens."""

import math

from hypothesis import given
from hypothesis import strategies as st

from noti.history.selectors import ALL_TOPICS, SelectorKind
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.streams.bearers import EMPTY_SLOTS_MAX, SLOTS_A_SECOND, Bearers
from noti.streams.end_reason import EndReason
from noti.streams.feed import Audience, View
from noti.streams.open_streams import Group, OpenStream, Reader

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))
GROUP = Group(ALL, 0)


def begin(bearers: Bearers, reader: Reader, ends_at: float = math.inf) -> OpenStream:
    expires = reader.ends_at < ends_at
    stream = OpenStream(
        group=GROUP,
        stream_id=0,
        client_key="",
        ends_at=min(ends_at, reader.ends_at),
        ends_for=EndReason.EXPIRED if expires else EndReason.AGED,
        cursor=0,
    )
    bearers.add(stream, reader)
    return stream


def reader(subject: str = "", token_id: str = "", ends_at: float = math.inf) -> Reader:
    return Reader(ALL, 0, "", ends_at=ends_at, subject=subject, token_id=token_id)


def test_streams_are_found_by_all_that_is_asked_for() -> None:
    bearers = Bearers()
    first = begin(bearers, reader("7", "a"))
    second = begin(bearers, reader("7", "b"))
    begin(bearers, reader("8", "a"))
    nobody = begin(bearers, reader())

    def found(**asked: str) -> set[OpenStream]:
        return bearers.of(**{"subject": None, "token_id": None, "subscriber": None, **asked})

    assert found(subject="7") == {first, second}
    assert found(subject="7", token_id="a") == {first}
    assert found(token_id="c") == found() == found(subject="") == set()
    assert nobody.bearer is None, "a stream without a token costs nothing"


def test_stream_of_a_subscriber_is_found_without_a_token() -> None:
    bearers = Bearers()
    news = (ActiveSubscription(SelectorKind.EXACT, "news"),)
    told_of = Reader(ALL, 0, "", subscriber=Subscriber("urn:uuid:7", 0, news))
    stream = begin(bearers, told_of)
    begin(bearers, reader())
    assert bearers.of(subject=None, token_id=None, subscriber="urn:uuid:7") == {stream}
    bearers.remove(stream)
    assert bearers.of(subject=None, token_id=None, subscriber="urn:uuid:7") == set()


def test_whoever_has_ended_is_not_found_and_leaves_nothing_behind() -> None:
    bearers = Bearers()
    for stream in [begin(bearers, reader("7", "a", 5.0)) for _ in range(3)]:
        bearers.remove(stream)
    assert bearers.of(subject="7", token_id=None, subscriber=None) == set()
    assert bearers._by_subject == bearers._by_token == {}
    assert not bearers._slots
    assert bearers.due_at == math.inf


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=40), st.floats(0, 1e6))
def test_each_stream_is_due_once_at_its_time_and_never_later(
    tokens: list[tuple[float, bool]], now: float
) -> None:
    bearers = Bearers()
    streams = [begin(bearers, reader(ends_at=moment)) for moment, _ in tokens]
    for stream, (_, leaves) in zip(streams, tokens, strict=True):
        if leaves:
            bearers.remove(stream)
    left = [stream for stream, (_, leaves) in zip(streams, tokens, strict=True) if not leaves]
    assert bearers.due_at <= min((stream.ends_at for stream in left), default=math.inf)
    due = set(bearers.due(now))
    assert {stream for stream in left if stream.ends_at <= now} <= due
    assert all(stream.ends_at <= now + 2 / SLOTS_A_SECOND for stream in due)
    assert bearers.due_at > now
    assert due | set(bearers.due(2e6)) == set(left)


def test_a_stream_that_ends_by_age_first_is_never_due() -> None:
    bearers = Bearers()
    begin(bearers, reader(ends_at=10.0), ends_at=9.0)
    assert bearers.due_at == math.inf


def test_streams_that_come_and_go_leave_few_times_behind() -> None:
    bearers = Bearers()
    begin(bearers, reader(ends_at=1.0))
    for second in range(10_000):
        bearers.remove(begin(bearers, reader(ends_at=100.0 + second)))
    assert len(bearers._times) <= EMPTY_SLOTS_MAX + 2


def test_a_stream_can_be_ended_before_its_time() -> None:
    bearers = Bearers()
    stream = begin(bearers, reader(ends_at=100.0))
    bearers.end_at(stream, 5.0)
    assert bearers.due(5.0) == [stream]
    assert bearers.due(200.0) == []
