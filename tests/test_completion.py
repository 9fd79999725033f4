"""An answer that comes later."""

import pytest
import trio
import trio.testing

from noti.completion import Completion, OnDone, once_led
from noti.errors import NotiError, NotLeader, Overloaded, Unavailable


async def test_waiting_returns_the_result_in_whatever_order_they_come() -> None:
    known: Completion[int] = Completion()
    known(3)
    assert await known.wait() == 3
    later: Completion[int] = Completion()
    results: list[int] = []

    async def wait() -> None:
        results.append(await later.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        later(4)
    assert results == [4]


async def test_waiting_raises_what_went_wrong() -> None:
    completion: Completion[int] = Completion()
    completion(Unavailable("no leader"))
    with pytest.raises(Unavailable, match="no leader"):
        await completion.wait()


async def test_what_is_submitted_waits_for_a_leader_and_is_submitted_again() -> None:
    answers: list[int | NotiError] = [NotLeader(None), NotLeader("n2"), 7]
    waited = 0

    async def wait_news() -> None:
        nonlocal waited
        waited += 1
        await trio.lowlevel.checkpoint()

    def submit(on_done: OnDone[int]) -> None:
        on_done(answers.pop(0))

    assert await once_led(submit, wait_news) == 7
    assert (answers, waited) == ([], 2)


async def test_other_errors_than_a_missing_leader_are_raised_at_once() -> None:
    answers: list[int | NotiError] = [Overloaded("too much waits"), 7]

    async def wait_news() -> None:
        raise AssertionError("nobody waits")

    def submit(on_done: OnDone[int]) -> None:
        on_done(answers.pop(0))

    with pytest.raises(Overloaded):
        await once_led(submit, wait_news)
