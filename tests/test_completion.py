"""An answer that comes later."""

import pytest
import trio
import trio.testing

from noti.completion import Completion
from noti.errors import Unavailable


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
