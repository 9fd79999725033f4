"""`noti publish --rpc` against real nodes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import trio

from noti.cli import exit_status
from noti.cli.demo_tls import DemoTls
from tests.http.stage import client, events
from tests.interop.processes import NodeProcess, written
from tests.ports import free_port

pytestmark = pytest.mark.interop

DEADLINE_S = 30
EARLIEST = "/.well-known/mercure?topic={}&lastEventID=earliest"


@contextmanager
def running(node: NodeProcess, *flags: str) -> Iterator[NodeProcess]:
    try:
        node.start("--history-size", "10000", *flags)
        trio.run(node.until_up)
        yield node
    finally:
        trio.run(node.destroy)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with running(NodeProcess("single", tmp_path_factory.mktemp("node"))) as single:
        yield single


def shown(node: NodeProcess, topic: str, count: int) -> list[tuple[str, str]]:
    """Return the ids and data of a topic's events, once there are so many."""

    async def read() -> list[tuple[str, str]]:
        with trio.fail_after(DEADLINE_S):
            async with client(node.http) as http:
                await http.request(EARLIEST.format(topic))
                while len(events(http.text)) < count:
                    await http.read_more()
                return [(event["id"], event["data"]) for event in events(http.text)]

    return trio.run(read)


def publish(node: NodeProcess, *arguments: str) -> int:
    return exit_status(["publish", "--rpc", written(node.rpc), *arguments])


def command(node: NodeProcess, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "noti", "publish", "--rpc", written(node.rpc), *arguments]


def publish_lines(
    node: NodeProcess, topic: str, lines: IO[str]
) -> subprocess.CompletedProcess[str]:
    """Publish each line as an event, to the end of them."""
    return subprocess.run(
        command(node, "--topic", topic),
        stdin=lines,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_event_is_shown_under_the_id_that_is_returned(
    node: NodeProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(node, "--topic", "one", "--topic", "other", "--data", "héllo") == 0
    assert publish(node, "--topic", "one", "--data", "again", "--id", "mine") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert second == "published to one: committed as mine"
    event_id = first.removeprefix("published to one: committed as ")
    assert shown(node, "one", 2) == [(event_id, "héllo"), ("mine", "again")]
    assert shown(node, "other", 1) == [(event_id, "héllo")]


def test_category_event_is_what_the_bridge_makes_of_it(node: NodeProcess) -> None:
    assert publish(node, "--user-id", "7", "--from", "books", "--to", "films") == 0

    async def category() -> str:
        async with client(node.http) as http:
            await http.request("/category?lastEventID=earliest")
            while "data" not in http.text:
                await http.read_more()
            return events(http.text)[-1]["data"]

    [(_, data)] = shown(node, "jobs.noti.books", 1)
    assert data.startswith('{"user_id":7,"category_from":"books","category_to":"films",')
    assert trio.run(category) == "UserID: 7 Category: books MatchCategory: films"


def test_event_carries_type_time_to_retry_and_privacy(node: NodeProcess) -> None:
    said = ("--type", "chat", "--retry-ms", "250")
    assert publish(node, "--topic", "typed", "--data", "x", *said) == 0
    assert publish(node, "--topic", "typed", "--data", "hidden", "--private") == 0
    assert publish(node, "--topic", "typed", "--data", "y") == 0
    assert [data for _, data in shown(node, "typed", 2)][-1] == "y", "the private one is not shown"


def test_each_line_of_standard_input_is_an_event_in_order(
    node: NodeProcess, tmp_path: Path
) -> None:
    lines = [f"{number} {'x' * (number % 100)}" for number in range(2500)]
    file = tmp_path / "lines"
    file.write_text("\n\n".join(lines))  # the last one has no end, and empty ones are no events
    with file.open() as source:
        ended = publish_lines(node, "lines", source)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "published 2500 events\n", "")
    assert [data for _, data in shown(node, "lines", 2500)] == lines


def test_lines_are_published_as_they_come_until_a_signal(node: NodeProcess) -> None:
    with subprocess.Popen(
        command(node, "--topic", "log"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdin is not None
        for count in (1, 2):
            print(f"line {count}", file=following.stdin, flush=True)
            assert len(shown(node, "log", count)) == count
        following.send_signal(signal.SIGTERM)
        assert following.communicate(timeout=DEADLINE_S)[0].startswith("published 2 events")
        assert following.returncode == 0


def test_lines_that_no_node_takes_are_named_and_end_it(node: NodeProcess) -> None:
    with subprocess.Popen(
        command(node, "--topic", "bad"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as publishing:
        assert publishing.stdin is not None
        publishing.stdin.write(b"good\nalso good\n")
        publishing.stdin.flush()
        assert len(shown(node, "bad", 2)) == 2
        out, err = publishing.communicate(b"\xff\n", DEADLINE_S)
    assert publishing.returncode == 1
    assert out == b"published 2 events, all of the first 2 lines\n"
    assert err.startswith(b"noti: error: line 3 of standard input: 'utf-8' codec can't decode")
    assert err.count(b"\n") == 1


def test_line_that_never_ends_is_rejected_as_soon_as_it_is_too_long(node: NodeProcess) -> None:
    with Path("/dev/zero").open() as endless:
        ended = publish_lines(node, "endless", endless)
    assert (ended.returncode, ended.stdout) == (1, "published 0 events, all of the first 0 lines\n")
    assert ended.stderr.startswith("noti: error: line 1 of standard input: ")
    assert ended.stderr.endswith(" bytes; 1048576 are allowed\n")


def test_what_the_node_rejects_is_reported_in_its_words(
    node: NodeProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(node, "--topic", "t", "--data", "x", "--id", "#7") == 1
    told = f"noti: error: {written(node.rpc)} says: an event's id may not begin with #: '#7'"
    assert capsys.readouterr().err.startswith(told)


def test_node_that_is_not_there_is_reported_in_one_line(
    node: NodeProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    for address, told in (
        (nowhere, f"cannot reach {nowhere}: Connection refused"),
        (written(node.http), "is it the RPC port of a node?"),
    ):
        assert exit_status(["publish", "--rpc", address, "--topic=t", "--data=x"]) == 1
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --topic, or --user-id, --from and --to ("),
        (["--rpc=h:1"], "give --topic, or --user-id, --from and --to ("),
        (["--rpc=h:1", "--user-id=1"], "give --topic, or --user-id, --from and --to ("),
        (["--rpc=h:1", "--topic=t", "--url=http://h"], "not with --rpc"),
        (["--user-id=1", "--from=a", "--to=b", "--url=http://h"], "go with --topic"),
        (["--rpc=h:1", "--topic=t", "--from=a"], "not both"),
        (["--rpc=h:1", "--user-id=1", "--from=a", "--to=b", "--data=x"], "--data goes with"),
        (["--rpc=h:1", "--topic=t", "--id=x"], "--id goes with --data"),
        (["--rpc=h", "--topic=t"], "'h' is not host:port"),
        (["--rpc=h:1", "--topic=t", "--tls-cert=none.pem"], "tls_key"),
    ],
)
def test_flags_that_do_not_go_together_are_reported_with_what_does(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["publish", *arguments]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_closed_standard_input_is_no_end_of_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert exit_status(["publish", "--rpc=h:1", "--topic=t"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_only_a_nodes_certificate_publishes_and_is_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = DemoTls(tmp_path / "certs")
    tls.make(["single"])
    single = NodeProcess("single", tmp_path)
    event = ["--topic=t", "--data=x"]

    def pair(name: str) -> list[str]:
        at = tls.directory
        return [f"--tls-cert={at}/{name}.pem", f"--tls-key={at}/{name}.key", f"--tls-ca={tls.ca}"]

    with running(single, *pair("single")):
        assert publish(single, *event, *pair("single")) == 0
        assert publish(single, *event) == 1
        assert "takes TLS only" in capsys.readouterr().err
        assert publish(single, *event, *pair("publisher")) == 2
        assert "names no node" in capsys.readouterr().err
        assert len(shown(single, "t", 1)) == 1
