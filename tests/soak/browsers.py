"""The process of the browsers, seen from the harness: orders to it, and its newest report.

No report of `fleet.py` is lost.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from noti.address import Address


class Browsers:
    """All browsers of a run."""

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}
        """The newest one; empty before the first."""
        self.ends: list[tuple[float, int, float]] = []
        """When a stream ended, at which node, and when its browser had connected."""
        self.silences: list[tuple[float, float]] = []
        """When no browser got anything new."""
        self.busy_s = 0.0
        """The longest time for which their process looked at no socket."""
        self._process: trio.Process | None = None
        self._answers: list[dict[str, Any]] = []

    async def run(
        self,
        nodes: Sequence[Address],
        clients: int,
        idle: int,
        run: str,
        log: Path,
        gaps_allowed: bool,
        token: str = "",
        tls: Sequence[int] = (),
        ca_pem: str = "",
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Let them browse until cancelled; raises `AssertionError` when their process ends.

        With a `token`, which may read everything, each fourth browser goes without it. `tls` names
        the places of nodes that have it, with certificates of the CA in `ca_pem`.
        """
        told = {"nodes": nodes, "clients": clients, "idle": idle, "run": run, "seed": run}
        told["gaps_allowed"] = gaps_allowed
        told |= {"token": token, "tls": list(tls), "ca": ca_pem}
        with log.open("wb") as errors:
            self._process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "tests.soak.fleet"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            await self._order(told)
            task_status.started()
            await self._listen()
        finally:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
        raise AssertionError(f"the process of the browsers ended; why is in {log}")

    async def missing(self, acknowledged: Sequence[int]) -> tuple[int, list[int]]:
        """Return how many of so many events of each publisher nobody saw, and some of them.

        Public ones must have been seen by those without rights too, in the same order.
        """
        self._answers.clear()
        await self._order({"do": "missing", "acknowledged": list(acknowledged)})
        while not self._answers:  # noqa: ASYNC110
            await trio.sleep(0.05)
        return self._answers[0]["missing"], self._answers[0]["some"]

    def behind(self) -> int:
        """Return how many events the slowest one has still to get."""
        return int(self.report["events"] - self.report["slowest"])

    def behind_in_all(self) -> int:
        """Return how many deliveries are still to come."""
        return int(self.report["behind"])

    def slowest(self) -> str:
        """Return who that is, and how far behind, in words."""
        return f"the slowest ({self.report['slowest_is']}) is {self.behind()} behind"

    async def stay(self) -> None:
        """Let all of them stay where they are from now on."""
        await self._order({"do": "stay"})

    async def add_newcomers(self) -> None:
        """Let one more browser begin at each node, from the beginning of its history."""
        await self._order({"do": "newcomers"})

    async def _order(self, order: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        rest = b""
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        if "missing" in said:
            self._answers.append(said)
            return
        self.report = said
        self.busy_s = max(self.busy_s, said["busy_s"])
        self.ends += [(at, node, began) for at, node, began in said["ends"]]
        self.silences += [(begin, end) for begin, end in said["silences"]]
