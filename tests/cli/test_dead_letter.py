"""`noti dead-letter` at a real NATS server: what it shows, and what a replay leaves behind."""

import asyncio
import base64
import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RetentionPolicy, StorageType

from noti.cli import exit_status
from noti.publishing.nats.dead_letter import STREAM_NAME, SUBJECTS, RepeatedHeaders
from tests.cli.test_publish import DEADLINE_S, nats_server, wait_for
from tests.ports import free_port

pytestmark = pytest.mark.interop

T = TypeVar("T")
POISON = 40


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A server with the streams `jobs` and `noti-dead-letter`, both empty."""
    port = free_port()
    with nats_server(port, tmp_path):
        wait_for(port)
        on_nats(port, make_streams)
        yield port


def on_nats(port: int, work: Callable[[Client], Awaitable[T]]) -> T:
    async def connected() -> T:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(connected())


async def make_streams(client: Client) -> None:
    jetstream = client.jetstream()
    work_queue = RetentionPolicy.WORK_QUEUE
    await jetstream.add_stream(name="jobs", subjects=["jobs.noti.>"], retention=work_queue)
    await jetstream.add_stream(name=STREAM_NAME, subjects=[SUBJECTS], storage=StorageType.MEMORY)


async def write(client: Client, number: int, /, **changes: str) -> None:
    """Write a dead letter as a node does."""
    lines = {
        "Noti-Dead-Letter-Reason": "the payload is no UTF-8 text",
        "Noti-Dead-Letter-Stream": "jobs",
        "Noti-Dead-Letter-Sequence": str(number),
        "Noti-Dead-Letter-Subject": f"jobs.noti.{number}",
        "Noti-Dead-Letter-Time": "2026-01-01T00:00:00Z",
        "Noti-Dead-Letter-Id": f"order-{number}",
        "Nats-Msg-Id": f"copy-{number}",
    }
    lines |= {f"Noti-Dead-Letter-{name.capitalize()}": value for name, value in changes.items()}
    kept = [("Noti-Topic", "a"), ("Noti-Topic", "b"), *((k, v) for k, v in lines.items() if v)]
    subject = f"noti.dead-letter.{lines['Noti-Dead-Letter-Stream']}"
    await client.jetstream().publish(subject, b"\xff", headers=RepeatedHeaders(kept))


def written(port: int, *numbers: int, **changes: str) -> None:
    async def write_all(client: Client) -> None:
        for number in numbers:
            await write(client, number, **changes)

    on_nats(port, write_all)


def held(port: int, stream: str) -> list[tuple[int, str, bytes, bytes]]:
    """Return number, subject, headers and payload of all that a stream holds."""

    async def read(client: Client) -> list[tuple[int, str, bytes, bytes]]:
        jetstream = client.jetstream()
        found: list[tuple[int, str, bytes, bytes]] = []
        state = (await jetstream.stream_info(stream)).state
        while len(found) < state.messages:
            after = found[-1][0] if found else 0
            message = await jetstream.get_msg(stream, after + 1, subject=">", next=True)
            assert message.seq is not None
            assert message.subject is not None
            headers = json.dumps(message.headers or {}).encode()
            found.append((message.seq, message.subject, headers, message.data or b""))
        return found

    return on_nats(port, read)


def ids(port: int) -> list[str]:
    return [json.loads(headers)["Nats-Msg-Id"] for _, _, headers, _ in held(port, "jobs")]


def noti(port: int, *arguments: str) -> int:
    return exit_status(["dead-letter", *arguments, f"--nats-url=nats://127.0.0.1:{port}"])


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_list_tells_which_messages_and_why(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    written(port, 7, 9)
    written(port, 3, stream="orders", truncated="9000000")
    assert noti(port, "list") == 0
    first, second, third = rows(capsys)
    assert first == {
        "number": 1,
        "stream": "jobs",
        "sequence": 7,
        "subject": "jobs.noti.7",
        "time": "2026-01-01T00:00:00Z",
        "size": 1,
        "reason": "the payload is no UTF-8 text",
        "kept_in": STREAM_NAME,
    }
    assert (second["number"], second["sequence"]) == (2, 9)
    assert (third["stream"], third["size"]) == ("orders", 9_000_000)
    assert noti(port, "list", "--stream=orders") == 0
    assert [row["number"] for row in rows(capsys)] == [3]
    assert noti(port, "list", "--limit=2") == 0
    assert [row["number"] for row in rows(capsys)] == [1, 2]


def test_list_is_a_table_in_a_terminal_and_nothing_in_it_steers_that(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(*arguments: str) -> str:
        screen = Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", "200")
            patch.setattr(sys, "stdout", screen)
            assert noti(port, "list", *arguments) == 0
        return click.unstyle(screen.getvalue())

    assert shown() == "no dead letters\n"
    written(port, 7, 9, reason="bad \x1b[2J[bold]")
    heading, row, _ = shown().splitlines()
    assert heading.split() == ["number", "stream", "sequence", "subject", "time", "size", "reason"]
    assert r"bad \x1b[2J[bold]" in row
    assert "there are more: --limit" in shown("--limit=1")


def test_what_is_no_dead_letter_is_passed_over(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    on_nats(port, lambda client: client.jetstream().publish("noti.dead-letter.x", b"hello"))
    written(port, 7)
    assert noti(port, "list") == 0
    assert [row["number"] for row in rows(capsys)] == [2]
    assert noti(port, "replay", "1") == 1
    assert "is no dead letter: it has no header Noti-Dead-Letter-" in capsys.readouterr().err


def test_replay_publishes_the_message_again_and_removes_its_dead_letter(port: int) -> None:
    written(port, 7, 8)
    assert noti(port, "replay", "1") == 0
    [(number, subject, _, payload)] = held(port, "jobs")
    assert (number, subject, payload) == (1, "jobs.noti.7", b"\xff")
    assert ids(port) == ["order-7"]
    assert [place for place, *_ in held(port, STREAM_NAME)] == [2]


def test_replay_repeats_headers_that_were_repeated(port: int) -> None:
    written(port, 7)
    assert noti(port, "replay", "--all") == 0

    async def raw(client: Client) -> bytes:
        answer = await client.request("$JS.API.STREAM.MSG.GET.jobs", b'{"seq": 1}')
        return base64.b64decode(json.loads(answer.data)["message"]["hdrs"])

    lines = on_nats(port, raw).split(b"\r\n")
    assert lines[1:4] == [b"Nats-Msg-Id: order-7", b"Noti-Topic: a", b"Noti-Topic: b"]
    assert lines[4:] == [b"", b""]


def test_message_whose_id_is_still_known_stays_a_dead_letter(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """JetStream would drop it, and an answer like any other would hide that."""
    headers = {"Nats-Msg-Id": "order-1"}
    on_nats(port, lambda client: client.jetstream().publish("jobs.noti.1", headers=headers))
    written(port, 1)
    assert noti(port, "replay", "--all") == 1
    said = capsys.readouterr()
    assert "kept 1: jobs still knows its id from its first publication" in said.out
    assert "120 s after that, or with --new-id" in said.out
    assert said.err == ("noti: error: 1 of 1 dead letters could not be replayed, and were kept\n")
    assert len(held(port, STREAM_NAME)) == 1
    assert noti(port, "replay", "--all", "--new-id") == 0
    assert ids(port) == ["order-1", "copy-1"]
    assert held(port, STREAM_NAME) == []


def test_message_that_was_published_again_before_is_there_once(port: int) -> None:
    """A replay may be ended when the stream has it and its dead letter is still there."""
    written(port, 0)
    headers = {"Nats-Msg-Id": "order-0"}
    on_nats(port, lambda client: client.jetstream().publish("jobs.noti.0", headers=headers))
    assert noti(port, "replay", "--all") == 0
    assert ids(port) == ["order-0"]
    assert held(port, STREAM_NAME) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"truncated": "9000000"}, "its payload of 9000000 bytes was not kept"),
        ({"subject": "elsewhere.x"}, "no stream takes elsewhere.x"),
        ({"subject": "$JS.API.STREAM.DELETE.jobs"}, "belongs to NATS itself"),
        ({"subject": "jobs.noti.a b"}, "NATS takes no such message"),
    ],
)
def test_what_cannot_be_published_again_stays_and_stops_no_other(
    port: int, capsys: pytest.CaptureFixture[str], changes: dict[str, str], why: str
) -> None:
    written(port, 7, **changes)
    written(port, 8)
    assert noti(port, "replay", "--all") == 1
    said = capsys.readouterr()
    assert why in said.out
    assert "1 of 2 dead letters" in said.err
    assert ids(port) == ["order-8"]
    assert [place for place, *_ in held(port, STREAM_NAME)] == [1]


def test_replay_of_a_stream_leaves_those_of_others(port: int) -> None:
    written(port, 7)
    written(port, 8, stream="orders", subject="jobs.noti.8")
    assert noti(port, "replay", "--stream=orders") == 0
    assert ids(port) == ["order-8"]
    assert [place for place, *_ in held(port, STREAM_NAME)] == [1]


def test_number_that_is_none_is_told(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert noti(port, "replay", "5") == 1
    assert capsys.readouterr().err == "noti: error: there is no dead letter 5\n"


@pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["--all", "--stream=jobs"]])
def test_replay_must_be_told_exactly_what(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["dead-letter", "replay", *arguments]) == 2
    assert "give numbers of dead letters, or --stream, or --all" in capsys.readouterr().err


def test_dead_letters_at_another_subject_are_found_there(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def elsewhere(client: Client) -> None:
        await client.jetstream().delete_stream(STREAM_NAME)
        await client.jetstream().add_stream(name="ops", subjects=["ops.>"])
        await client.jetstream().publish("ops.other", b"")
        client_headers = RepeatedHeaders(
            [
                ("Noti-Dead-Letter-Reason", "no"),
                ("Noti-Dead-Letter-Stream", "jobs"),
                ("Noti-Dead-Letter-Sequence", "1"),
                ("Noti-Dead-Letter-Subject", "jobs.noti.1"),
                ("Noti-Dead-Letter-Time", "2026-01-01T00:00:00Z"),
            ]
        )
        await client.jetstream().publish("ops.dead", b"", headers=client_headers)

    on_nats(port, elsewhere)
    assert noti(port, "list") == 0
    assert rows(capsys) == []
    assert noti(port, "list", "--subject=ops.dead") == 0
    assert [row["kept_in"] for row in rows(capsys)] == ["ops"]
    assert noti(port, "replay", "2", "--subject=ops.dead") == 0
    assert [subject for _, subject, _, _ in held(port, "ops")] == ["ops.other"]


@contextmanager
def refusing_node(port: int) -> Iterator[None]:
    """Make a dead letter of every message of `jobs` at once, as a wrong setting does."""
    stopping = threading.Event()
    ready = threading.Event()

    async def refuse(client: Client) -> None:
        numbers = iter(range(1000, 9999))

        async def on_message(_: Msg) -> None:
            await write(client, next(numbers), id="")

        await client.subscribe("jobs.noti.>", cb=on_message)
        await client.flush()
        ready.set()
        await asyncio.to_thread(stopping.wait)

    thread = threading.Thread(target=on_nats, args=(port, refuse))
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        yield
    finally:
        stopping.set()
        thread.join()


def test_replay_of_all_ends_though_they_come_back(port: int) -> None:
    written(port, *range(1, POISON + 1))
    with refusing_node(port):
        assert noti(port, "replay", "--all") == 0
    assert len(held(port, "jobs")) == POISON


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_replay_that_is_ended_in_the_middle_loses_nothing_and_repeats_nothing(
    port: int, number: signal.Signals
) -> None:
    written(port, *range(1, POISON + 1), sequence="0")
    url = f"--nats-url=nats://127.0.0.1:{port}"
    command = [sys.executable, "-m", "noti", "dead-letter", "replay", "--all", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as replaying:
        assert replaying.stdout is not None
        replaying.stdout.readline()
        replaying.send_signal(number)
        replaying.wait(DEADLINE_S)
    assert len(ids(port)) + len(held(port, STREAM_NAME)) >= POISON
    assert noti(port, "replay", "--all") == 0
    assert sorted(ids(port)) == sorted(f"order-{number}" for number in range(1, POISON + 1))
    assert held(port, STREAM_NAME) == []
