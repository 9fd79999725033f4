"""`noti disconnect` at a real node: streams of a user end, and his token is refused."""

from pathlib import Path

import httpx
import pytest
import trio

from noti.cli import exit_status
from tests.authorization.tokens import SECRET, token_v0
from tests.interop.processes import running_node, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]
LIMIT_S = 30.0


async def ends(url: str, token: str, opened: trio.Event) -> None:
    """Return when a stream with this token has ended."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(timeout=LIMIT_S) as client,
        client.stream("GET", url, params={"topic": "/users/7"}, headers=headers) as response,
    ):
        assert response.status_code == 200
        async for _ in response.aiter_raw():
            opened.set()


async def disconnect(url: str, token_file: Path, *arguments: str) -> int:
    command = ["disconnect", "--url", url, "--token-file", str(token_file), *arguments]
    return await trio.to_thread.run_sync(exit_status, command)


async def test_streams_of_a_subject_end_and_its_tokens_are_refused(tmp_path: Path) -> None:
    key, admin = tmp_path / "key", tmp_path / "admin"
    key.write_text(SECRET)
    admin.write_text(token_v0(["*"]))
    theirs, others = token_v0(sub="7", jti="a"), token_v0(sub="8", jti="b")
    async with running_node(tmp_path, "--publisher-jwt-key-file", str(key)) as node:
        base = f"http://{written(node.http)}"
        url = f"{base}/.well-known/mercure"
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                opened = trio.Event()
                nursery.start_soon(ends, url, theirs, opened)
                await opened.wait()
                assert await disconnect(base, admin, "--subject", "7", "--revoke-for", "1h") == 0
            async with httpx.AsyncClient(timeout=LIMIT_S) as client:
                for token, status in ((theirs, 401), (others, 200)):
                    headers = {"Authorization": f"Bearer {token}"}
                    asked = await client.head(url, params={"topic": "a"}, headers=headers)
                    assert asked.status_code == status


def test_wrong_use_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    assert exit_status(["disconnect", "--token-file", str(token)]) == 2
    assert "give --subject or --token-id" in capsys.readouterr().err
    where = ["--url", "http://127.0.0.1:1", "--token-file", str(token)]
    assert exit_status(["disconnect", "--subject", "7", *where]) == 1
    told = capsys.readouterr().err
    assert "no answer from http://127.0.0.1:1: " in told
    assert "secret" not in told
