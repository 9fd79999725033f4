"""A session with a real nats-server is cancelled at every step of its life, and ends quietly."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
import structlog.testing
import trio

from noti import asyncio_loop
from noti.publishing.nats.ports import DeadLetter, SourceMessage
from noti.publishing.nats.settings import NatsSettings
from noti.publishing.nats.source import NatsSource
from tests import promises
from tests.publishing.nats.nats_server import nats_server
from tests.publishing.nats.test_source import on_jetstream, publish, running_asyncio_loop

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STEPS_MAX = 5000
"""A session takes some hundred."""

DELETED_WITHIN_S = 10.0
"""Who is cancelled asks the server to delete its consumer, and does not wait for long."""

PUBLISHED = 2
"""Messages published for each session."""


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope after so many steps of any task, the asyncio loop's among them."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._steps = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps == 0:
            self._scope.cancel()


@contextmanager
def cancelled_after(steps: int) -> Iterator[trio.CancelScope]:
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def tasks_of_the_loop() -> int:
    """How many asyncio tasks there are besides the one that counts."""
    await asyncio.sleep(0)
    return len(asyncio.all_tasks()) - 1


async def live(source: NatsSource) -> None:
    """Use all that a session has."""
    async with source.open() as session:
        await session.begin(0)
        messages: list[SourceMessage] = []
        while len(messages) < PUBLISHED:
            messages += await session.fetch(10, 5.0)
        first, second, *_ = messages
        await session.ack([second])
        await session.dead_letter([DeadLetter(first, "no event")])
        await session.fetch(10, 0.01)


@promises.NATS_CLIENT_ENDS_NO_NODE
@pytest.mark.parametrize("retention", ["workqueue", "interest", "limits"])
async def test_cancelled_at_any_step_a_session_ends_quietly_and_the_next_one_works(
    retention: Literal["workqueue", "interest", "limits"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Each callback of asyncio is a step then.
    monkeypatch.setattr(asyncio_loop, "HANDLES_AT_ONCE", 1)
    caplog.set_level(logging.WARNING)
    async with running_asyncio_loop() as loop, nats_server(tmp_path) as server:
        source = NatsSource(loop, NatsSettings(urls=(server.url,), retention=retention))
        async with source.open() as session:
            await session.begin(0)
        with structlog.testing.capture_logs() as logs:
            for steps in range(1, STEPS_MAX):
                await publish(loop, server, PUBLISHED * (steps - 1) + 1, PUBLISHED * steps)
                with cancelled_after(steps) as scope:
                    await live(source)
                assert await loop.call(tasks_of_the_loop) == 0, f"left behind at step {steps}"
                if not scope.cancel_called:
                    break
            else:
                pytest.fail("the session never came to its end")
        assert steps > 100
        told = [line for line in logs if line["log_level"] in ("warning", "error")]
        assert (told, caplog.records) == ([], [])
        expected = {"workqueue": ["noti"], "limits": []}
        with trio.fail_after(DELETED_WITHIN_S):
            while True:
                infos = await on_jetstream(loop, server, lambda js: js.consumers_info("jobs"))
                names = [info.name for info in infos]
                if names == expected.get(retention, names[:1]):
                    break
                await trio.sleep(0.05)
