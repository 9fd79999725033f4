"""What the leader believes about one follower, and when it may send."""

from hypothesis import given
from hypothesis import strategies as st

from noti.raft.core.messages import Snapshot
from noti.raft.core.progress import Progress, ProgressState
from tests import promises

PLENTY = 1 << 40


def progress(match: int = 0, following: int = 10) -> Progress:
    return Progress("n2", following, last_contact_at=0.0, match_index=match)


def replicating(match: int = 5) -> Progress:
    made = progress(following=match + 1)
    assert made.matched(match)
    return made


def test_probe_sends_one_message_and_waits() -> None:
    probing = progress()
    assert probing.may_send(64, PLENTY)
    probing.sent(12, 100)
    assert not probing.may_send(64, PLENTY)
    assert probing.next_index == 10, "nothing is taken for granted before an answer"


def test_first_match_opens_the_pipeline() -> None:
    probing = progress()
    probing.sent(12, 100)
    assert probing.matched(12)
    assert probing.state is ProgressState.REPLICATE
    assert (probing.match_index, probing.next_index) == (12, 13)


@promises.PIPELINE_BOUNDED
def test_pipeline_is_limited_by_messages() -> None:
    follower = replicating()
    follower.sent(6, 1)
    assert follower.may_send(2, PLENTY)
    follower.sent(7, 1)
    assert not follower.may_send(2, PLENTY)
    follower.matched(6)
    assert follower.may_send(2, PLENTY)


@promises.PIPELINE_BOUNDED
def test_pipeline_is_limited_by_bytes_and_answers_give_them_back() -> None:
    follower = replicating()
    follower.sent(6, 60)
    follower.sent(7, 60)
    assert not follower.may_send(64, 100)
    follower.matched(7)
    assert follower.in_flight_bytes == 0
    assert follower.may_send(64, 100)


def test_answer_that_is_older_than_the_match_reports_nothing_new() -> None:
    follower = replicating(5)
    follower.sent(9, 1)
    assert not follower.matched(3)
    assert (follower.match_index, follower.next_index) == (5, 10)


def test_rejection_moves_the_probe_to_the_hint() -> None:
    probing = progress(following=10)
    probing.sent(12, 1)
    probing.rejected(9, 4)
    assert probing.next_index == 4
    assert probing.may_send(64, PLENTY), "the next probe leaves at once"


def test_rejection_never_moves_next_to_or_below_the_match() -> None:
    follower = replicating(5)
    follower.sent(9, 1)
    follower.rejected(8, 1)
    assert follower.state is ProgressState.PROBE
    assert (follower.match_index, follower.next_index) == (5, 6)


def test_rejection_with_a_hint_beyond_what_was_refused_still_moves_back() -> None:
    """Otherwise a confused follower would make the leader probe the same place for ever."""
    probing = progress(following=10)
    probing.rejected(9, 50)
    assert probing.next_index == 9


def test_rejection_of_what_is_already_matched_is_an_old_one() -> None:
    follower = replicating(5)
    follower.rejected(5, 2)
    assert follower.state is ProgressState.REPLICATE


def test_rejections_of_a_whole_pipeline_count_once() -> None:
    """All in flight are refused one after the other; only the first says something new."""
    follower = replicating(5)
    for last in (6, 7, 8):
        follower.sent(last, 1)
    follower.rejected(6, 6)
    probe = follower.next_index
    follower.rejected(7, 6)
    follower.rejected(8, 6)
    assert follower.next_index == probe


def test_lost_stream_starts_again_from_what_is_known() -> None:
    follower = replicating(5)
    follower.sent(6, 50)
    follower.sent(7, 50)
    follower.lost()
    assert follower.state is ProgressState.PROBE
    assert follower.next_index == 6
    assert (len(follower.in_flight), follower.in_flight_bytes) == (0, 0)
    assert follower.may_send(64, PLENTY)


def snapshot(index: int) -> Snapshot:
    return Snapshot(index, 1, b"", (b"state",))


def test_nothing_but_the_snapshot_is_sent_until_it_is_there() -> None:
    follower = progress()
    follower.needs_snapshot(snapshot(20), now=1.0)
    assert not follower.may_send(64, PLENTY)
    follower.matched(7)
    follower.rejected(30, 1)
    assert not follower.may_send(64, PLENTY)
    follower.matched(20)
    assert follower.state is ProgressState.REPLICATE
    assert follower.next_index == 21


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("sent"), st.integers(1, 5), st.integers(0, 50)),
            st.tuples(st.just("matched"), st.integers(0, 60), st.just(0)),
            st.tuples(st.just("rejected"), st.integers(0, 60), st.integers(0, 60)),
            st.tuples(st.just("lost"), st.just(0), st.just(0)),
            st.tuples(st.just("snapshot"), st.integers(1, 60), st.just(0)),
        )
    )
)
def test_next_stays_above_match_and_match_never_falls(steps: list[tuple[str, int, int]]) -> None:
    follower = progress(following=1)
    for what, one, two in steps:
        match_before = follower.match_index
        match what:
            case "sent" if follower.may_send(4, 100):
                follower.sent(follower.next_index + one - 1, two)
            case "matched":
                follower.matched(one)
            case "rejected":
                follower.rejected(one, two)
            case "lost":
                follower.lost()
            case "snapshot":
                follower.needs_snapshot(snapshot(one), 0.0)
            case _:
                assert what == "sent"
        assert match_before <= follower.match_index < follower.next_index
        assert follower.in_flight_bytes == sum(size for _, size in follower.in_flight)
        assert all(last > follower.match_index for last, _ in follower.in_flight)
