"""A node's store with web workers, which are real processes."""

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from pydantic import SecretStr

from noti.address import Address
from noti.authorization.revoking import Revoking
from noti.authorization.signing import TokenDraft, signed_token
from noti.completion import OnDone
from noti.config import Config
from noti.errors import NotiError
from noti.history.commands import Publish, encode
from noti.history.notification import Event
from noti.history.store import Store
from noti.trio_clock import TrioClock
from noti.web_workers.workers import WebWorkers
from tests.http.publishing_stage import Log
from tests.http.stage import Node, anybody

SECRET = "a secret of the tests, 32 bytes long"


@dataclass
class Commands:
    """A `CommandLog` that commits at once what it is given."""

    apply: Callable[[bytes], None] = lambda _command: None
    committed: list[bytes] = field(default_factory=list)
    failures: list[NotiError] = field(default_factory=list)
    """What the next ones get."""
    reads: int = 0

    def submit(self, command: bytes, on_done: OnDone[int]) -> None:
        if self.failures:
            on_done(self.failures.pop(0))
            return
        self.committed.append(command)
        self.apply(command)
        on_done(len(self.committed))

    async def propose(self, command: bytes) -> None:
        self.submit(command, lambda _outcome: None)

    async def read(self) -> None:
        self.reads += 1
        await trio.lowlevel.checkpoint()

    async def wait_news(self) -> None:
        await trio.lowlevel.checkpoint()


class Site:
    """One node, as far as its browsers are concerned."""

    def __init__(self, directory: Path, count: int, **settings: Any) -> None:
        config = Config(
            name="n1",
            data_dir=directory,
            http_addr=("127.0.0.1", 0),
            ops_addr=("127.0.0.1", 0),
            anonymous=True,
            publisher_jwt_key=SecretStr(SECRET),
            **settings,
        )
        self.store = Store()
        self.workers = WebWorkers(config, count, TrioClock(), random.Random(1))
        self.machine = self.workers.state_machine(self.store)
        self.commands = Commands(self.machine.apply)
        self.node = Node()
        self.address: Address

    def publish(self, first: int, last: int, topic: str = "t") -> None:
        """Have the node apply events with these numbers as ids and data, one a command."""
        for number in range(first, last + 1):
            event = Event(0, str(number), (topic,), str(number), 1_700_000_000_000 + number)
            self.machine.apply(encode(Publish((event,))))

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            serve = self.workers.serve
            clock = TrioClock()

            async def start(*, task_status: trio.TaskStatus[Address]) -> None:
                await serve(
                    self.node,
                    Log(),
                    commands=self.commands,
                    authorizer=anybody(),
                    presence=None,
                    revoking=Revoking(self.commands.propose, clock),
                    task_status=task_status,
                )

            self.address = await nursery.start(start)
            task_status.started()

    def pids(self) -> list[int]:
        """The process ids of the workers, in the order of their numbers."""
        workers = self.workers._workers
        return [workers[number].process.pid for number in sorted(workers)]


@asynccontextmanager
async def site(directory: Path, count: int = 2, **settings: Any) -> AsyncIterator[Site]:
    one = Site(directory, count, **settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        yield one
        nursery.cancel_scope.cancel()


def publisher_token() -> str:
    return signed_token(
        TokenDraft(publish=("*",), issued_at=time.time()), SECRET.encode(), "the test's", "HS256"
    )
