"""`noti mock-publisher`: publishes numbered events to JetStream, without a gap, to look at."""

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import click
from nats.js import JetStreamContext
from rich.console import Console
from rich.status import Status

from noti.backoff import Backoff
from noti.cli.asyncio_commands import run_until_signalled, within
from noti.cli.deadline import timeout_option
from noti.cli.jetstream import (
    DEFAULT_NATS_URL,
    FOREIGN_ERRORS,
    STREAM_SETTINGS,
    category_message,
    open_jetstream,
    problem,
    shown_url,
    subject_of,
    target_of,
)
from noti.cli.settings import load_config, settings_options
from noti.config import Config

RETRY_S_MAX = 5.0
"""Between two attempts to reach NATS."""
REPORT_INTERVAL_S = 10
"""How often progress is reported where there is no terminal to draw on."""

CATEGORIES = ("books", "films", "games", "music", "news", "sport", "travel")


@click.command()
@settings_options(*STREAM_SETTINGS)
@click.option("--rate", type=click.FloatRange(0.01, 10_000), default=2.0, help="Events a second.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many. [default: never]")
@click.option("--start", type=click.IntRange(1, 2**32 - 1), default=1, help="The first user_id.")
@timeout_option
def mock_publisher(
    config_file: Path | None,
    rate: float,
    count: int | None,
    start: int,
    timeout_s: float,
    **options: Any,
) -> None:
    """Publish numbered events to NATS, one after the other, until Ctrl-C.

    The user_id of an event is its number, so a gap or a duplicate is easy to see. Waits for NATS,
    and says when it does not answer in time.
    """
    config = load_config(config_file, options, nats_url=DEFAULT_NATS_URL)
    numbers = iter(range(start, start + count)) if count else itertools.count(start)
    run_until_signalled(_publish_numbers(config, numbers, rate, timeout_s, _Report(config)))


class _Report:
    """One line that a person can follow: redrawn in a terminal, repeated now and then elsewhere."""

    def __init__(self, config: Config) -> None:
        self.published = 0
        self._stream = f"{target_of(config)[0]} at {shown_url(config)}"
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._reported_kind = ""
        self._reported_at = 0.0

    def __enter__(self) -> "_Report":
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
        self._console.print(f"published {self.published} events to {self._stream}")

    def waiting(self, problem: str) -> None:
        self._report("waiting", f"{problem}; trying again")

    def progress(self, number: int) -> None:
        self.published += 1
        self._report("publishing", f"published {number} to {self._stream}")

    def _report(self, kind: str, line: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._status is not None:
            self._status.update(line)
        elif kind != self._reported_kind or now - self._reported_at >= REPORT_INTERVAL_S:
            self._console.print(line)
            self._reported_kind, self._reported_at = kind, now


async def _publish_numbers(
    config: Config, numbers: Iterator[int], rate: float, timeout_s: float, report: _Report
) -> None:
    """Publish every number once, in order, whatever happens to NATS meanwhile."""
    run_id = uuid.uuid4().hex[:12]
    backoff = Backoff(Random(), most_s=RETRY_S_MAX)
    pending = next(numbers, None)
    with report:
        while pending is not None:
            try:
                async with open_jetstream(config, timeout_s) as jetstream:
                    due = asyncio.get_running_loop().time()
                    while pending is not None:
                        await _publish_number(jetstream, config, run_id, pending, timeout_s)
                        report.progress(pending)
                        backoff.succeeded()
                        pending = next(numbers, None)
                        due = max(due + 1 / rate, asyncio.get_running_loop().time() - 1)
                        await asyncio.sleep(due - asyncio.get_running_loop().time())
            except FOREIGN_ERRORS as error:
                report.waiting(problem(config, error, timeout_s))
                await asyncio.sleep(backoff.failed())


async def _publish_number(
    jetstream: JetStreamContext, config: Config, run_id: str, number: int, timeout_s: float
) -> None:
    category_from = CATEGORIES[number % len(CATEGORIES)]
    category_to = CATEGORIES[number * 3 % len(CATEGORIES)]
    publishing = jetstream.publish(
        subject_of(config, category_from),
        bytes(category_message(number, category_from, category_to)),
        stream=target_of(config)[0],
        timeout=timeout_s,
        # When an ack was lost we publish again; JetStream drops the second by this id.
        headers={"Nats-Msg-Id": f"{run_id}-{number}"},
    )
    await within(timeout_s, publishing)
