"""Promises of what is not history any more: counted as a plain dictionary would, left in slices."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from noti.streams.former_history import LATE_MAX, FormerHistory
from noti.streams.hub import TRIMMED_AT_ONCE
from tests.http.stage import hub, notifications, running, until

SEQS = st.integers(1, 40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), SEQS, st.integers(1, 100)),
        st.tuples(st.just("take"), SEQS, st.integers(1, 10)),
    ),
    max_size=60,
)


@given(STEPS)
def test_sums_are_those_of_what_is_there_in_whatever_order_it_came(
    steps: list[tuple[str, int, int]],
) -> None:
    former, plain = FormerHistory(), dict[int, int]()
    for what, seq, number in steps:
        if what == "add":
            if seq not in plain:
                plain[seq] = number
                former.add(seq, number)
        else:
            expected = [one for one in sorted(plain) if one <= seq][:number]
            assert former.take(seq, number) == expected
            for one in expected:
                del plain[one]
        assert former.size_bytes == sum(plain.values())
        for after in (0, 7, 20, 33, 40):
            assert former.beyond(after) == sum(size for one, size in plain.items() if one > after)
            assert former.between(after, 35) == [one for one in sorted(plain) if after < one <= 35]


def test_many_out_of_order_are_put_in_order() -> None:
    former = FormerHistory()
    for seq in range(3 * LATE_MAX, 0, -1):
        former.add(seq, 2)
    assert len(former._late) <= LATE_MAX
    assert former.beyond(LATE_MAX) == 4 * LATE_MAX
    assert former.take(5, 100) == [1, 2, 3, 4, 5]
    former.clear()
    assert former.beyond(0) == former.size_bytes == 0


async def test_much_that_leaves_history_at_once_leaves_in_slices_and_in_order() -> None:
    async with running(hub()) as there:
        trimmed: list[int] = []
        trim = there.feed.trim

        def counting(oldest_seq: int, gone: Sequence[int] | None = None) -> None:
            assert gone is not None
            trimmed.append(len(gone))
            trim(oldest_seq, gone)

        there.feed.trim = counting  # type: ignore[method-assign]
        there.publish(notifications(1, 5000))
        kept = {7, 1000, 1001, 3333}
        there.trim(4991, [seq for seq in range(4990, 0, -1) if seq not in kept])
        there.publish(notifications(5001, 5010))
        there.trim(5001, [7, *range(4991, 5001)])
        assert not trimmed
        await until(lambda: not there._trims)
        assert max(trimmed) == TRIMMED_AT_ONCE
        assert list(there.feed.retained.backwards()) == [
            *range(5010, 5000, -1),
            3333,
            1001,
            1000,
        ]
        assert len(there.feed.retained.notifications) == 13, "nobody needs the others"
        there.publish(notifications(5011, 5011))
        there.trim(5002, [1000, 5001])
        assert trimmed[-1] == 2, "at once again"
