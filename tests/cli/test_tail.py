"""`noti tail` as a process: what a person sees, what a pipe gets, and what is rejected."""

import json
import subprocess
import sys
from functools import partial

import pytest
import trio

from noti.cli import exit_status
from noti.cli.tail import stream_url
from noti.errors import LocalError
from tests.http.stage import LIMIT_S, hub, notification, notifications, serving

pytestmark = pytest.mark.slow


async def tail(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    with trio.fail_after(LIMIT_S):
        return await trio.run_process(
            [sys.executable, "-m", "noti", "tail", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_pipe_gets_one_json_object_a_line(scheme: str) -> None:
    there = hub()
    there.publish(notifications(1, 4))
    async with serving(there) as (host, port):
        done = await tail(f"{scheme}://{host}:{port}", "--from", "id-1", "--json", "--count", "3")
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["id"] for one in shown] == ["id-2", "id-3", "id-4"]
    assert json.loads(shown[0]["data"])["user_id"] == 2
    assert b"resumed from id-1" in done.stderr


async def test_next_node_is_followed_when_the_first_does_not_answer() -> None:
    there = hub()
    there.publish(notifications(1, 2))
    async with serving(there) as (host, port):
        urls = ["http://127.0.0.1:1", f"http://{host}:{port}"]
        done = await tail(*urls, "--from", "id-1", "--json", "--count", "1")
        assert json.loads(done.stdout)["id"] == "id-2"
        named = [f"--url={url}" for url in urls]
        again = await tail(*named, "--from", "id-1", "--json", "--count", "1")
    assert again.stdout == done.stdout


async def test_a_person_sees_lines_without_what_could_harm_a_terminal() -> None:
    there = hub()
    there.publish([notification(1, data="red \x1b[31m alert\nsecond line")])
    async with serving(there) as (host, port):
        done = await tail(f"http://{host}:{port}", "--from", "unknown", "--count", "2")
    text = done.stdout.decode()
    assert "noti-gap" in text, "a gap is told"
    assert "red \\x1b[31m alert\n    second line" in text
    assert "\x1b" not in text


async def test_a_topic_is_followed_alone() -> None:
    there = hub()
    there.publish([notification(1, "a"), notification(2, "b"), notification(3, "a")])
    async with serving(there) as (host, port):
        arguments = ("--topic", "a", "--from", "earliest", "--count", "2", "--json")
        done = await tail(f"http://{host}:{port}", *arguments)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["id-1", "id-3"]


async def test_it_ends_quietly_when_its_reader_does() -> None:
    there = hub()
    there.publish(notifications(1, 900))
    async with serving(there) as (host, port):
        command = f"{sys.executable} -m noti tail http://{host}:{port} --from earliest | head -n 1"
        with trio.fail_after(LIMIT_S):
            done = await trio.run_process(
                ["bash", "-c", command], capture_stdout=True, capture_stderr=True
            )
    assert done.stdout.count(b"\n") == 1
    assert b"Error" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("events", [0, 1])
async def test_it_ends_when_its_reader_does_although_nothing_comes(events: int) -> None:
    there = hub()
    there.publish(notifications(1, events))
    async with serving(there) as (host, port):
        command = [sys.executable, "-m", "noti", "tail", f"http://{host}:{port}", "--from", "x"]
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        with trio.fail_after(LIMIT_S):
            while there.clients == 0:  # noqa: ASYNC110
                await trio.sleep(0.01)
            await process.stdout.aclose()
            assert await process.wait() == 0


async def test_it_stops_after_the_event_that_is_waited_for() -> None:
    there = hub()
    there.publish([notification(number, data=f"job {number} done") for number in range(1, 6)])
    async with serving(there) as (host, port):
        arguments = ("--from", "earliest", "--json", "--until", "job 3")
        done = await tail(f"http://{host}:{port}", *arguments)
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line)["data"] for line in done.stdout.splitlines()]
    assert shown == ["job 1 done", "job 2 done", "job 3 done"]


async def test_a_signal_is_a_clean_end() -> None:
    there = hub()
    async with serving(there) as (host, port), trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "noti", "tail", f"http://{host}:{port}"]
        process = await nursery.start(
            partial(trio.run_process, command, stderr=subprocess.DEVNULL, check=False)
        )
        with trio.fail_after(LIMIT_S):
            while there.clients == 0:  # noqa: ASYNC110
                await trio.sleep(0.01)
        process.terminate()
        with trio.fail_after(LIMIT_S):
            assert await process.wait() == 0


def test_the_address_of_a_node_is_completed() -> None:
    assert stream_url("http://h:1", ()) == "http://h:1/.well-known/mercure?topic=%2A&cursor=1"
    assert stream_url("http://h:1/", ("a b", "c")) == (
        "http://h:1/.well-known/mercure?topic=a+b&topic=c&cursor=1"
    )
    assert stream_url("wss://h", ("a",)) == "wss://h/.well-known/mercure?topic=a&cursor=1"
    assert stream_url("https://h/any?x=1", ()) == "https://h/any?x=1"
    with pytest.raises(LocalError, match="--topic goes with the address of a node"):
        stream_url("http://h:1/category", ("a",))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--header", "secret"], "--header"),
        (["--from", "é"], "--from"),
        (["nowhere"], "cannot be asked for"),
        (["--count", "0"], "--count"),
        (["--ca", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_is_reported_in_one_line(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["tail", *arguments]) in (1, 2)
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1
