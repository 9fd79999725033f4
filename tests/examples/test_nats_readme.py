"""What the READMEs say about NATS, run as it is printed. Only ports differ."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from httpx_sse import connect_sse

from tests.interop.nats.go_programs import program, run_source
from tests.interop.processes import NodeProcess, written
from tests.publishing.nats.nats_server import NatsServer, nats_server

ROOT = Path(__file__).parents[2]
READMES = [Path("README.md"), Path("noti/publishing/nats/README.md")]
ABOUT_NATS = READMES[1]
PRINTED_NATS = "127.0.0.1:4222"
PRINTED_HTTP = "127.0.0.1:8402"

pytestmark = [pytest.mark.interop, pytest.mark.slow]

Seen = tuple[str, str]
"""Id and data of an event."""


def example(readme: Path, language: str) -> str:
    """Return the only example in a language."""
    text = (ROOT / readme).read_text()
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(found)


class Site:
    """NATS, and what the first line of the example in bash starts."""

    def __init__(self, directory: Path, server: NatsServer) -> None:
        self.directory = directory
        self.server = server
        self.node = NodeProcess("single", directory)

    def printed(self, text: str) -> str:
        """Return an example with the ports of this test."""
        here = {
            PRINTED_NATS: f"127.0.0.1:{self.server.port}",
            PRINTED_HTTP: written(self.node.http),
        }
        for one, other in here.items():
            text = text.replace(one, other)
        return text

    def shell(self, script: str) -> subprocess.Popen[str]:
        """Start lines of shell where `nats` and `noti` are on the PATH."""
        path = [str(program("nats").parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        return subprocess.Popen(
            ["bash", "-euc", self.printed(script)],
            env={
                "HOME": str(self.directory),
                "NATS_URL": self.server.url,
                "PATH": ":".join(path),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def run_shell(self, script: str) -> str:
        """Run lines of shell to their end, and return what they print."""
        with self.shell(script) as process:
            output, _ = await trio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, output
        return output

    def follow(self, topic: str, count: int) -> list[Seen]:
        """Return the first events of a topic."""
        url = f"http://{written(self.node.http)}/.well-known/mercure"
        query = {"topic": topic, "lastEventID": "earliest"}
        with (
            httpx.Client(timeout=30) as client,
            connect_sse(client, "GET", url, params=query) as source,
        ):
            events = source.iter_sse()
            return [(event.id, event.data) for event in itertools.islice(events, count)]


@asynccontextmanager
async def site(directory: Path, readme: Path) -> AsyncIterator[Site]:
    """Run NATS and the node of a README's example."""
    async with nats_server(directory / "nats") as server:
        there = Site(directory, server)
        first = example(readme, "bash").splitlines()[0]
        words = shlex.split(there.printed(first))
        assert (words[:2], words[-1]) == (["noti", "run"], "&")
        try:
            there.node.start(*words[2:-1])
            await there.node.until_reading()
            yield there
        except BaseException:
            print(there.node.last_lines())
            raise
        finally:
            with trio.CancelScope(shield=True):
                await there.node.destroy()


@pytest.mark.go
@pytest.mark.parametrize("readme", READMES, ids=str)
async def test_the_lines_that_start_with_a_node_show_what_they_publish(
    tmp_path: Path, readme: Path
) -> None:
    _, publish, follow = example(readme, "bash").splitlines()
    async with site(tmp_path, readme) as there:
        await there.run_shell(publish)
        with there.shell(follow) as process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            assert "data: a goal\n" in lines
            process.kill()


@pytest.mark.go
async def test_the_examples_with_the_nats_command_publish_three_events(tmp_path: Path) -> None:
    async with site(tmp_path, ABOUT_NATS) as there:
        await there.run_shell(example(ABOUT_NATS, "sh"))
        seen = await trio.to_thread.run_sync(there.follow, "news.sport", 2)
        assert seen == [("goal-1", "a goal"), ("goal-3", "three goals\n")]
        seen = await trio.to_thread.run_sync(there.follow, "/goals", 1)
        assert seen == [("goal-2", "two goals")]


async def test_the_example_with_nats_py_publishes_an_event_and_prints_where_it_is_stored(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, ABOUT_NATS) as there:
        code = there.printed(example(ABOUT_NATS, "python"))
        command = [sys.executable, "-W", "error", "-c", code]
        ran = await trio.run_process(command, capture_stdout=True)
        assert ran.stdout == b"news 1\n"
        seen = await trio.to_thread.run_sync(there.follow, "/goals", 1)
        assert seen == [("goal-4", "a goal")]


@pytest.mark.go
async def test_the_example_with_nats_go_publishes_an_event_of_two_topics(tmp_path: Path) -> None:
    async with site(tmp_path, ABOUT_NATS) as there:
        file = tmp_path / "main.go"
        file.write_text(there.printed(example(ABOUT_NATS, "go")))
        ran = await trio.to_thread.run_sync(partial(run_source, file))
        assert (ran.stdout, ran.returncode) == ("news 1\n", 0), ran.stderr
        for topic in ("/goals", "/news"):
            seen = await trio.to_thread.run_sync(there.follow, topic, 1)
            assert seen == [("goal-5", "a goal")]
