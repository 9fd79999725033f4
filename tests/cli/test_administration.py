"""What a node says to an administrator's request, and that it says nothing, is one clear line."""

from pathlib import Path

import pytest
import trio

from noti.cli.administration import answer_of
from noti.cli.http import token_in
from noti.errors import ConfigInvalid, LocalError, MessageInvalid, Unavailable
from tests.http.stage import hub, serving


def ask(url: str, token_file: Path, path: str = "/liveness") -> bytes:
    async def read() -> bytes:
        async with answer_of(
            "GET", url, path, token=token_in(token_file), tls_ca=None, timeout_s=20
        ) as answer:
            return await answer.read(10_000)

    return trio.run(read)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret")
    return path


async def test_answer_is_read_and_a_rejection_is_told_with_what_the_node_says(token: Path) -> None:
    async with serving(hub()) as (host, port):
        url = f"http://{host}:{port}/"
        assert b'"status": "up"' in await trio.to_thread.run_sync(ask, url, token)
        with pytest.raises(MessageInvalid, match=r"status 404: .*/nowhere"):
            await trio.to_thread.run_sync(ask, url, token, "/nowhere")


def test_node_that_does_not_answer_is_named(token: Path) -> None:
    with pytest.raises(Unavailable, match=r"no answer from http://127\.0\.0\.1:1: ") as caught:
        ask("http://127.0.0.1:1", token)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x", "http://[", "http://\udc80"])
def test_what_is_no_url_of_a_node_is_told(url: str, token: Path) -> None:
    with pytest.raises(LocalError, match="cannot be asked for"):
        ask(url, token)


def test_file_without_a_token_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        ask("http://127.0.0.1:1", tmp_path / "missing")
