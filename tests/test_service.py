"""A service around its users: started before them, stopped after them."""

import pytest
import trio
import trio.testing

from noti.service import Tree, running, with_last_step


class Diary:
    """What happened, in order, and services that write into it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        self.lines.append("service starts")
        try:
            task_status.started(8400)
            await trio.sleep_forever()
        finally:
            self.lines.append("service ends")


async def fail_soon(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep(1)
    raise OSError("broken")


async def end_soon(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep(1)


async def never_ready(*, task_status: trio.TaskStatus[None]) -> None:
    await trio.sleep_forever()


async def test_body_runs_with_what_the_service_reported_and_the_service_ends_after_it() -> None:
    diary = Diary()
    async with running("it", diary.serve) as port:
        diary.lines.append(f"body with {port}")
    assert diary.lines == ["service starts", "body with 8400", "service ends"]


async def test_nested_services_stop_in_the_opposite_order() -> None:
    outer, inner = Diary(), Diary()
    inner.lines = outer.lines
    async with running("outer", outer.serve):
        outer.lines.append("between")
        async with running("inner", inner.serve):
            outer.lines.append("body")
        outer.lines.append("after the inner one")
    assert outer.lines == [
        "service starts",
        "between",
        "service starts",
        "body",
        "service ends",
        "after the inner one",
        "service ends",
    ]


async def test_failing_service_cancels_the_body_and_its_failure_is_raised(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cancelled = False
    with pytest.RaisesGroup(OSError):
        async with running("it", fail_soon):
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert cancelled


async def test_failing_body_stops_the_service_and_its_failure_is_raised() -> None:
    diary = Diary()
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="body")):
        async with running("it", diary.serve):
            raise ValueError("body")
    assert diary.lines[-1] == "service ends"


async def test_cancellation_reaches_the_body_first_which_may_still_use_the_service(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary = Diary()
    with trio.move_on_after(1) as scope:
        async with running("it", diary.serve):
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    await trio.sleep(2)
                diary.lines.append("body ends")
    assert scope.cancelled_caught
    assert diary.lines == ["service starts", "body ends", "service ends"]
    assert trio.current_time() == pytest.approx(3)


async def test_service_that_ends_by_itself_is_an_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="it ended by itself")):
        async with running("it", end_soon):
            await trio.sleep_forever()


async def test_service_that_does_not_get_ready_can_be_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.move_on_after(1) as scope:
        async with running("it", never_ready):
            pytest.fail("the body must not run")
    assert scope.cancelled_caught


async def test_cancellation_in_the_moment_of_getting_ready_stops_the_service() -> None:
    """Trio failed on it. Found by: just sim seed=1018 layer=nodes"""
    with trio.CancelScope() as scope:

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            scope.cancel()
            await trio.lowlevel.checkpoint_if_cancelled()

        async with running("it", serve):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_last_step_is_done_also_when_cancelled_but_within_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    said: list[float] = []

    async def last_step() -> None:
        await trio.sleep(1)
        said.append(trio.current_time())
        await trio.sleep_forever()

    with trio.move_on_after(1):
        async with with_last_step("it", last_step, within_s=3):
            await trio.sleep_forever()
    assert said == [2]
    assert trio.current_time() == pytest.approx(4)


async def test_failure_of_the_body_is_raised_after_the_last_step() -> None:
    said: list[str] = []

    async def last_step() -> None:
        await trio.lowlevel.checkpoint()
        said.append("last_step")

    with pytest.raises(ValueError, match="body"):
        async with with_last_step("it", last_step, within_s=3):
            raise ValueError("body")
    assert said == ["last_step"]


class Part:
    """A service that notes when it is cancelled, and takes a while to end."""

    def __init__(self, name: str, diary: list[str], ends_in_s: float = 0.0) -> None:
        self._name, self._diary, self._ends_in_s = name, diary, ends_in_s
        self.breaks = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await self.breaks.wait()
            raise OSError(f"{self._name} broke")
        except trio.Cancelled:
            self._diary.append(f"{self._name} cancelled at {trio.current_time():g}")
            with trio.CancelScope(shield=True):
                await trio.sleep(self._ends_in_s)
            raise


async def test_tree_stops_in_order_after_the_last_steps(
    autojump_clock: trio.testing.MockClock,
) -> None:
    diary: list[str] = []

    async def last_step() -> None:
        diary.append("last_step")
        await trio.sleep(1)

    with trio.move_on_after(1):
        async with Tree() as tree:
            await tree.start("outer", Part("outer", diary).run)
            await tree.start("inner", Part("inner", diary, ends_in_s=3).run)
            await tree.before_stop("it", last_step, within_s=3)
            await trio.sleep_forever()
    assert diary == ["last_step", "inner cancelled at 2", "outer cancelled at 5"]


@pytest.mark.parametrize("broken", ["outer", "middle", "inner", "body"])
async def test_tree_of_which_a_part_fails_falls_at_once_without_last_steps(
    broken: str, autojump_clock: trio.testing.MockClock
) -> None:
    diary: list[str] = []
    parts = {name: Part(name, diary, ends_in_s=3) for name in ("outer", "middle", "inner")}

    async def last_step() -> None:
        diary.append("last_step")

    with pytest.RaisesGroup(OSError, flatten_subgroups=True, allow_unwrapped=True):
        async with Tree() as tree:
            tree.at_fall(lambda: diary.append("falls"))
            for name, part in parts.items():
                await tree.start(name, part.run)
                await tree.before_stop(name, last_step, within_s=3)
            await trio.sleep(1)
            if broken == "body":
                raise OSError("the body broke")
            parts[broken].breaks.set()
            await trio.sleep_forever()
    assert diary[0] == "falls"
    cancelled = {f"{name} cancelled at 1" for name in parts if name != broken}
    assert set(diary[1:]) == cancelled
    assert trio.current_time() == pytest.approx(4)
