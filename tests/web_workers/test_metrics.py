"""Promises of the metrics of a node with web workers."""

import os
import re
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from noti.web_workers import metrics
from tests.http.stage import until
from tests.web_workers.stage import Site, site
from tests.web_workers.test_workers import READERS, readers

pytestmark = pytest.mark.interop


async def measured(one: Site, *names: str) -> list[float]:
    page = (await one.workers._operations("/metrics", "")).body.decode()
    found = [re.search(rf"^{name} (.*)$", page, re.MULTILINE) for name in names]
    return [float(match.group(1)) for match in found if match]


async def test_the_metrics_of_all_workers_are_the_nodes_also_when_one_hangs_or_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "ANSWERS_WITHIN_S", 5.0)
    opened = "noti_streams_clients_opened_total"
    async with site(tmp_path, sse_clients_max=100) as one, AsyncExitStack() as stack:
        [before] = await measured(one, opened)  # of this process, which other tests have used
        await stack.enter_async_context(readers(one))
        await until(lambda: one.workers.clients == READERS)
        clients, counted, most = await measured(
            one, "noti_streams_clients", opened, "noti_streams_clients_max"
        )
        assert (clients, counted - before) == (READERS, READERS)
        assert most == one.workers._config.sse_clients_max
        first, second = one.pids()
        os.kill(first, signal.SIGSTOP)
        monkeypatch.setattr(metrics, "ANSWERS_WITHIN_S", 0.05)
        assert await measured(one, "noti_streams_clients", opened) == [READERS, before + READERS]
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(one.pids()) == 2 and one.pids() != [first, second])
        monkeypatch.setattr(metrics, "ANSWERS_WITHIN_S", 5.0)
        await until(lambda: all(w.listening for w in one.workers._workers.values()))
        clients, counted = await measured(one, "noti_streams_clients", opened)
        assert clients < READERS
        assert counted == before + READERS, "no counter falls"
