"""Backups over HTTP: who gets one, what is in it, and when there is none."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from noti.history.backup import BackupReader
from noti.history.snapshot import StoreParts, pieces_of
from noti.http import backups
from noti.http.backups import BACKUPS_MAX, PATH
from noti.http.config import HttpConfig
from noti.http.server import Frontend
from tests.authorization.tokens import authorizer, token_v0
from tests.history.test_backup import store
from tests.http.stage import LIMIT_S, Node, hub

ADMIN = token_v0(["*"], ["*"])
MUCH = [b"x" * 65_536] * 1000
"""More than sockets hold."""


@asynccontextmanager
async def serving(
    node: Node, pieces: Callable[[], Iterator[bytes]] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    frontend = Frontend(
        ("127.0.0.1", 0),
        hub(),
        node,
        HttpConfig(),
        authorizer=authorizer(),
        pieces_of_state=pieces or store().snapshot_pieces,
    )
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(frontend.run)
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=LIMIT_S) as client:
            yield client
        nursery.cancel_scope.cancel()


def shown(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def read(content: bytes) -> tuple[BackupReader, StoreParts]:
    reader = BackupReader()
    reader.feed(content)
    return reader, reader.finish()


async def test_who_may_publish_and_read_everything_gets_the_whole_state() -> None:
    async with serving(Node()) as client:
        answer = await client.get(PATH, headers=shown(ADMIN))
    assert answer.status_code == 200
    reader, parts = read(answer.content)
    assert b"".join(pieces_of(parts)) == store().snapshot()
    assert (reader.about["node"], reader.about["build"]) == ("host-1", "test")


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (None, 401),
        ("garbage", 401),
        (token_v0(["*"]), 403),
        (token_v0(subscribe=["*"]), 403),
        (token_v0(["/a"], ["*"]), 403),
        (token_v0(["*"], ["/a"]), 403),
    ],
)
async def test_nobody_else_gets_anything(token: str | None, status: int) -> None:
    node = Node()
    async with serving(node) as client:
        answer = await client.get(PATH, headers=shown(token))
    assert answer.status_code == status
    assert "noti_backup" not in answer.text
    assert node.barriers == 0


async def test_everything_committed_before_is_in_it() -> None:
    node, caught_up = Node(), []
    node.on_barrier = lambda: caught_up.append(True)

    def pieces() -> Iterator[bytes]:
        assert caught_up, "the state is taken after the node has caught up"
        return store().snapshot_pieces()

    async with serving(node, pieces) as client:
        answer = await client.get(PATH, headers=shown(ADMIN))
    read(answer.content)


async def test_without_a_majority_there_is_only_what_is_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backups, "CONSISTENT_WITHIN_S", 0.01)
    async with serving(Node(is_ready=False)) as client:
        answer = await client.get(PATH, headers=shown(ADMIN))
        assert answer.status_code == 503
        assert "?consistent=0" in answer.text
        stale = await client.get(PATH, headers=shown(ADMIN), params={"consistent": "0"})
    assert stale.status_code == 200


async def test_more_than_two_at_one_time_are_asked_to_come_later() -> None:
    async with serving(Node(), lambda: iter(MUCH)) as client:
        requests = [client.build_request("GET", PATH, headers=shown(ADMIN)) for _ in range(2)]
        begun = [await client.send(request, stream=True) for request in requests]
        assert [answer.status_code for answer in begun] == [200] * BACKUPS_MAX
        third = await client.get(PATH, headers=shown(ADMIN))
        assert third.status_code == 503
        for answer in begun:
            await answer.aclose()
        with trio.fail_after(LIMIT_S):
            while (await client.head(PATH, headers=shown(ADMIN))).status_code != 200:  # noqa: ASYNC110
                await trio.sleep(0.01)
