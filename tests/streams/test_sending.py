"""Promises of the sending core, without sockets: who gets what next, whatever the kernel takes."""

import ast
import inspect
import random
import re

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noti.history.selectors import ALL_TOPICS
from noti.streams import sending, sse
from noti.streams.feed import Audience, Batch, Feed, FellBehind, View
from noti.streams.open_streams import AdoptedStream, Reader, State, StreamLimits
from noti.streams.sending import FOLLOWS, Groups, Sending
from tests.http.stage import ids, notification, notifications, selecting
from tests.streams.takers import Taker

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))
LAST_WORDS = sse.chunk(sse.retry(500)) + sse.LAST_CHUNK


class Stage:
    """A sending core, and connections that take as much as a test says."""

    def __init__(self, chunk_bytes_max: int = 65536) -> None:
        self.feed = Feed()
        self.limits = StreamLimits(100, 0)
        self.sending = Sending(self.feed, self.limits, chunk_bytes_max)
        self.takers: dict[AdoptedStream, Taker] = {}
        self.now = 0.0

    def adopt(self, after_seq: int, audience: Audience = ALL) -> AdoptedStream:
        taker = Taker(len(self.takers))
        stream = self.sending.adopt(Reader(audience, after_seq, ""), 0.0, taker)
        self.takers[stream] = taker
        return stream

    def send_next(self, stream: AdoptedStream, size: int = 1_000_000) -> None:
        """Send a stream that is not in step what it gets next; so many bytes are taken."""
        match self.sending.next_for(stream):
            case None:
                return
            case FellBehind():
                self.sending.close(stream)
                return
            case Batch() as batch:
                data: bytes | memoryview = batch.wire
            case rest:
                data = rest
        self.sending.took(stream, data, self.takers[stream].take(data, size), self.now)

    def send_to_groups(self, size: int = 1_000_000) -> None:
        """Send all groups what is new; so many bytes of each chunk are taken."""
        for group in self.sending.groups.pass_on():
            while (batch := self.sending.next_for_group(group)) is not None:
                members = list(group.in_step.values())
                if isinstance(batch, FellBehind):
                    for stream in members:
                        self.sending.close(stream)
                    continue
                for stream in members if batch.events else ():
                    taken = self.takers[stream].take(batch.wire, size)
                    self.sending.took(stream, batch.wire, taken, self.now)

    def fall_in(self, stream: AdoptedStream) -> None:
        self.send_to_groups()
        while stream.state is not State.IN_STEP:
            self.send_next(stream)

    def text(self, stream: AdoptedStream) -> str:
        """What a client read."""
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        http.send(h11.EndOfMessage())
        http.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        if taken := self.takers[stream].taken:  # without any, h11 would see an end
            http.receive_data(taken)
        text = ""
        while not isinstance(event := http.next_event(), type(h11.NEED_DATA) | h11.EndOfMessage):
            text += bytes(event.data).decode() if isinstance(event, h11.Data) else ""
        return text


def test_table_in_docstring_is_the_one_that_is_enforced() -> None:
    written: dict[State, set[State]] = {state: set() for state in State}
    rows = (sending.__doc__ or "").partition("---\n")[2]
    for row in rows.strip().splitlines():
        from_column, _, to = re.split(r"  +", row.strip())
        froms = (
            set(State) - {State.CLOSED}
            if from_column == "any but CLOSED"
            else {State[name] for name in from_column.split(", ")}
        )
        for state in froms:
            written[state].add(State[to])
    assert written == FOLLOWS


def test_state_changes_at_one_place_only() -> None:
    tree = ast.parse(inspect.getsource(sending))
    changes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "stream.state"
    ]
    assert len(changes) == 1


def test_stream_replays_and_then_shares_its_groups_cursor() -> None:
    stage = Stage(chunk_bytes_max=300)
    stage.feed.extend(notifications(1, 20))
    stream = stage.adopt(5)
    stage.fall_in(stream)
    assert ids(stage.text(stream)) == [f"id-{n}" for n in range(6, 21)]
    stage.feed.extend(notifications(21, 22))
    stage.send_to_groups()
    assert ids(stage.text(stream)) == [f"id-{n}" for n in range(6, 23)]
    assert stream.state is State.IN_STEP


def test_stream_that_has_all_that_its_group_has_begins_in_step() -> None:
    stage = Stage()
    stage.feed.extend(notifications(1, 5))
    first = stage.adopt(5)
    assert first.state is State.BEHIND, "its group is new"
    stage.fall_in(first)
    second, older = stage.adopt(5), stage.adopt(3)
    assert second.state is State.IN_STEP
    assert older.state is State.BEHIND
    stage.feed.extend(notifications(6, 6))
    newer = stage.adopt(6)
    assert newer.state is State.BEHIND, "its group is not there yet"
    stage.fall_in(newer)
    stage.fall_in(older)
    assert ids(stage.text(second)) == ids(stage.text(first)) == ["id-6"]
    assert ids(stage.text(older)) == ["id-4", "id-5", "id-6"]
    assert ids(stage.text(newer)) == []


def test_stream_of_a_history_that_was_replaced_does_not_begin_in_step() -> None:
    stage = Stage()
    stage.feed.extend(notifications(1, 5))
    stage.fall_in(stage.adopt(5))
    stage.sending.groups.lag_all()
    stage.feed.reset(notifications(1, 3))
    late = stage.adopt(3)
    assert late.state is State.BEHIND
    stage.fall_in(late)
    stage.feed.extend(notifications(4, 4))
    stage.send_to_groups()
    assert ids(stage.text(late)) == ["id-4"]


def test_stream_whose_socket_is_full_waits_for_room_and_holds_up_nobody() -> None:
    stage = Stage()
    full, other = stage.adopt(0), stage.adopt(0)
    stage.fall_in(full)
    stage.fall_in(other)
    stage.feed.extend(notifications(1, 1))
    stage.send_to_groups(size=7)
    assert {full.state, other.state} == {State.BEHIND}
    stage.send_next(other)
    assert other.state is State.IN_STEP
    stage.now = 3.0
    stage.send_next(full, size=0)
    assert (full.state, full.slow, full.blocked_at) == (State.BLOCKED, True, 3.0)
    assert stage.sending.sendable == {}
    assert list(stage.sending.not_in_step()) == [full]
    stage.feed.extend(notifications(2, 2))
    stage.send_to_groups()
    stage.sending.room_again(full)
    stage.fall_in(full)
    assert not full.slow
    assert stage.takers[full].taken == stage.takers[other].taken
    assert ids(stage.text(full)) == ["id-1", "id-2"]


def test_closing_chunk_follows_the_rest_of_a_chunk_and_nothing_follows_it() -> None:
    stage = Stage()
    stream = stage.adopt(0)
    stage.feed.extend(notifications(1, 1))
    stage.send_to_groups()
    stage.send_next(stream, size=10)
    stage.send_next(stream, size=0)
    stage.sending.end(stream, LAST_WORDS)
    stage.sending.end(stream, LAST_WORDS)
    assert stream.state is State.ENDING_BLOCKED
    stage.feed.extend(notifications(2, 2))
    stage.send_to_groups()
    stage.sending.room_again(stream)
    stage.send_next(stream)
    assert (stream.state, bytes(stream.unsent)) == (State.ENDING, b"")
    assert stage.text(stream).endswith("retry: 500\n")
    assert ids(stage.text(stream)) == ["id-1"]


def test_stream_that_leaves_its_group_knows_how_far_it_is() -> None:
    stage = Stage()
    stream = stage.adopt(0)
    stage.fall_in(stream)
    stage.feed.extend(notifications(1, 9))
    stage.send_to_groups()
    stage.sending.end(stream, LAST_WORDS)
    assert stream.cursor == 9


@pytest.mark.parametrize("in_step", [False, True])
def test_closed_stream_is_nowhere_and_its_group_neither(*, in_step: bool) -> None:
    stage = Stage()
    stream = stage.adopt(0)
    if in_step:
        stage.fall_in(stream)
    stage.sending.close(stream)
    assert list(stage.sending.all()) == list(stage.sending.not_in_step()) == []
    assert stage.limits.count == 0
    assert stage.sending.groups.pass_on() == []
    with pytest.raises(AssertionError):
        stage.sending.close(stream)


def test_stream_is_stalled_for_the_time_that_it_was_seen_to_be_blocked() -> None:
    stage = Stage()
    stream = stage.adopt(0)
    stage.feed.extend(notifications(1, 1))
    stage.send_to_groups()
    assert not stage.sending.has_stalled(stream, 5.0, 5.0, timeout_s=5.0)
    stage.now = 10.0
    stage.send_next(stream, size=1)
    stage.send_next(stream, size=0)
    assert not stage.sending.has_stalled(stream, 5.0, 12.0, timeout_s=5.0)  # blocked for 2 s
    assert not stage.sending.has_stalled(stream, 2.0, 900.0, timeout_s=5.0)  # and seen for 2 s
    assert stage.sending.has_stalled(stream, 2.0, 902.0, timeout_s=5.0)


def test_large_event_has_as_much_time_as_the_chunks_that_it_counts_as() -> None:
    """Who could not take it in the time of one was closed, came back, and met it again."""
    chunk_bytes = 8_192
    stage = Stage(chunk_bytes)
    stream = stage.adopt(0)
    stage.feed.extend([notification(1, data="x" * 10 * chunk_bytes)])
    stage.send_to_groups(size=1)
    for _ in range(5):
        stage.send_next(stream, size=0)
        stage.now += 4.0
        assert not stage.sending.has_stalled(stream, 4.0, stage.now, timeout_s=5.0)
        stage.sending.room_again(stream)
        stage.send_next(stream, size=chunk_bytes)
    stage.send_next(stream, size=0)
    stage.now += 40.0
    assert stage.sending.has_stalled(stream, 40.0, stage.now, timeout_s=5.0)


def test_heartbeat_is_needed_after_silence_by_streams_in_step_only() -> None:
    stage = Stage()
    stream = stage.adopt(0)
    assert not stage.sending.needs_heartbeat(stream)
    stage.fall_in(stream)
    assert [stage.sending.needs_heartbeat(stream) for _ in range(3)] == [False, True, True]
    stream.quiet = False
    assert [stage.sending.needs_heartbeat(stream) for _ in range(2)] == [False, True]


@pytest.mark.parametrize(("first", "last"), [(3, 4), (20, 21)])
def test_a_snapshot_without_its_cursor_ends_a_stream_in_step_or_not(first: int, last: int) -> None:
    stage = Stage()
    in_step, behind = stage.adopt(0), stage.adopt(0)
    stage.fall_in(in_step)
    stage.feed.extend(notifications(1, 9))
    stage.send_to_groups()
    stage.sending.groups.lag_all()
    stage.feed.reset(notifications(first, last))
    stage.send_to_groups()
    stage.send_next(behind)
    assert {in_step.state, behind.state} == {State.CLOSED}


def test_group_that_is_left_and_found_anew_within_a_pass_still_gets_what_comes() -> None:
    stage = Stage()
    old = stage.adopt(0)
    stage.fall_in(old)
    stage.feed.extend(notifications(1, 1))
    [group] = stage.sending.groups.pass_on()
    assert stage.sending.next_for_group(group) is not None
    stage.sending.close(old)
    new = stage.adopt(1)
    assert stage.sending.next_for_group(group) is None
    stage.feed.extend([notification(n, "other") for n in range(2, 9)])
    assert new.group.lagging == (ALL in stage.sending.groups.lagging)
    stage.fall_in(new)
    assert ids(stage.text(new)) == [f"id-{n}" for n in range(2, 9)]


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 6)),
    st.tuples(st.just("adopt"), st.integers(0, 20)),
    st.tuples(st.just("group"), st.sampled_from((0, 1, 50, 10_000))),
    st.tuples(st.just("send"), st.sampled_from((0, 1, 50, 400, 10_000))),
    st.tuples(st.just("room"), st.integers(0, 9)),
    st.tuples(st.just("end"), st.integers(0, 9)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60), st.integers(0, 1000))
def test_whatever_the_kernel_takes_each_stream_is_whole_in_order_and_in_one_place(
    steps: list[tuple[str, int]], seed: int
) -> None:
    rng = random.Random(seed)
    stage = Stage(chunk_bytes_max=400)
    begun: dict[AdoptedStream, int] = {}
    newest = 0
    for what, number in steps:
        open_streams = [stream for stream in begun if stream.state is not State.CLOSED]
        match what:
            case "publish":
                stage.feed.extend(notifications(newest + 1, newest + number))
                newest += number
            case "adopt":
                after_seq = max(0, newest - number)
                begun[stage.adopt(after_seq)] = after_seq
            case "group":
                stage.send_to_groups(number)
            case "send":
                for stream in list(stage.sending.sendable.values()):
                    stage.send_next(stream, number)
            case _ if not open_streams:
                pass
            case "room":
                stage.sending.room_again(rng.choice(open_streams))
            case _:
                stage.sending.end(rng.choice(open_streams), LAST_WORDS)
        for stream in list(stage.sending.adopted.values()):
            if stream.state is State.ENDING and not stream.unsent:
                stage.sending.close(stream)
            places = (
                stage.sending.sendable.get(stream.fd) is stream,
                stream.group.in_step.get(stream.fd) is stream,
                stage.sending._blocked.get(stream.fd) is stream,
                stream.state is State.CLOSED,
            )
            assert sum(places) == 1
    for stream in list(stage.sending.adopted.values()):
        stage.sending.room_again(stream)
    while stage.sending.sendable:
        stage.send_to_groups()
        for stream in list(stage.sending.sendable.values()):
            stage.send_next(stream)
            if stream.state is State.ENDING and not stream.unsent:
                stage.sending.close(stream)
    stage.send_to_groups()
    for stream, after_seq in begun.items():
        seen = ids(stage.text(stream))
        assert seen == [f"id-{n}" for n in range(after_seq + 1, after_seq + 1 + len(seen))]
        assert stream.state is State.CLOSED or len(seen) == newest - after_seq


def audience(topic: str) -> Audience:
    return Audience(View.MERCURE, selecting(topic))


def test_only_groups_with_news_lag_and_until_it_is_sent() -> None:
    feed = Feed()
    groups = Groups(feed)
    one, other = groups.enter(audience("a")), groups.enter(audience("b"))
    for group in groups.pass_on():
        groups.settle(group)
    feed.extend([notification(1, "a"), notification(2, "a")])
    assert groups.pass_on() == [one]
    assert (groups.cursor_of(one), groups.cursor_of(other)) == (0, 2)
    groups.settle(one)
    assert (groups.cursor_of(one), groups.pass_on()) == (2, [])


def test_group_lives_as_long_as_it_has_streams() -> None:
    feed = Feed()
    groups = Groups(feed)
    group = groups.enter(audience("a"))
    assert groups.enter(audience("a")) is group
    groups.leave(group)
    groups.leave(group)
    assert groups.pass_on() == []
    assert groups.enter(audience("a")) is not group
