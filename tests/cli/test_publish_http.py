"""`noti publish` over HTTP against a real node."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from noti.cli import exit_status
from tests.authorization.tokens import SECRET, token_v0
from tests.http.stage import client, events
from tests.interop.processes import NodeProcess, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]

DEADLINE_S = 30


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("node")
    (directory / "key").write_text(SECRET)
    single = NodeProcess("single", directory)
    try:
        single.start("--publisher-jwt-key-file", str(directory / "key"))
        trio.run(single.until_up)
        yield single
    finally:
        trio.run(single.destroy)


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text(f"{token_v0(publish=['*'], subscribe=['*'])}\n")
    return str(file)


def url(node: NodeProcess) -> str:
    return f"http://{written(node.http)}"


def shown(node: NodeProcess, topic: str, count: int) -> list[dict[str, str]]:
    async def read() -> list[dict[str, str]]:
        with trio.fail_after(DEADLINE_S):
            async with client(node.http) as http:
                await http.request(f"/.well-known/mercure?topic={topic}&lastEventID=earliest")
                while len(events(http.text)) < count:
                    await http.read_more()
                return events(http.text)

    return trio.run(read)


def test_an_event_is_published_over_http_with_a_token(
    node: NodeProcess, token_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--url", url(node), "--token-file", token_file, "--topic", "one", "--data", "d"]
    assert exit_status(["publish", *arguments, "--id", "id-1", "--type", "note"]) == 0
    assert capsys.readouterr().out == "published to one: committed as id-1\n"
    [event] = shown(node, "one", 1)
    assert (event["id"], event["event"], event["data"]) == ("id-1", "note", "d")


def test_a_private_event_is_shown_by_tail_to_whom_its_token_allows(
    node: NodeProcess, token_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish = ["--url", url(node), "--token-file", token_file, "--topic", "mine", "--private"]
    assert exit_status(["publish", *publish, "--data", "secret"]) == 0
    tail = [sys.executable, "-m", "noti", "tail", url(node), "--topic", "mine"]
    tail += ["--from", "earliest", "--count", "1", "--json", "--token-file", token_file]
    seen = subprocess.run(tail, capture_output=True, check=True, timeout=DEADLINE_S)
    assert b"secret" in seen.stdout


def test_lines_are_published_in_their_order(node: NodeProcess, token_file: str) -> None:
    command = [sys.executable, "-m", "noti", "publish", "--url", url(node), "--topic", "lines"]
    done = subprocess.run(
        [*command, "--token-file", token_file],
        input=b"1\n\n2\n3",
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"published 3 events\n"), done.stderr
    assert [event["data"] for event in shown(node, "lines", 3)] == ["1", "2", "3"]


def test_a_missing_token_is_reported_with_the_nodes_words(
    node: NodeProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["publish", "--url", url(node), "--topic", "a", "--data", "d"]) == 1
    error = capsys.readouterr().err
    assert "401" in error
    assert "token" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "ftp://127.0.0.1", "--data", "d"], "not the URL of a node"),
        (["--url", "http://127.0.0.1:1", "--data", "d", "--timeout", "0.3"], "nothing was commit"),
        (["--token-file", "/nowhere", "--data", "d"], "/nowhere cannot be read"),
        (["--rpc", "127.0.0.1:1", "--url", "http://127.0.0.1:1", "--data", "d"], "--rpc"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["publish", "--topic", "a", *arguments]) != 0
    assert words in capsys.readouterr().err
