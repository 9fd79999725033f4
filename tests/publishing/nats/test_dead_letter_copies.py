"""Copies of what can never be an event, with a real nats-server."""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
from nats.js import api
from nats.js.errors import NotFoundError
from prometheus_client import REGISTRY

from noti.publishing.nats import dead_letter
from noti.publishing.nats.dead_letter import RepeatedHeaders, parse_headers, stored_letter
from noti.publishing.nats.ports import DeadLetter, SourceMessage
from noti.publishing.nats.source import NatsSource
from tests.publishing.nats.nats_server import NatsServer, nats_server
from tests.publishing.nats.test_consumers import Stage, fetch, read, stage
from tests.publishing.nats.test_source import running_asyncio_loop

pytestmark = pytest.mark.interop

SUBJECT = "noti.dead-letter.jobs"


def copies(outcome: str, stream: str = "jobs") -> float:
    labels = {"stream": stream, "outcome": outcome}
    return REGISTRY.get_sample_value("noti_source_dead_letters_total", labels) or 0.0


async def bury(source: NatsSource, count: int = 1, reason: str = "no event") -> list[SourceMessage]:
    """Read so many, and put all of them among the dead letters."""
    async with source.open() as session:
        await session.begin(0)
        messages = await fetch(session, count)
        await session.dead_letter([DeadLetter(message, reason) for message in messages])
    return messages


async def letters(here: Stage, stream: str = dead_letter.STREAM_NAME) -> Sequence[Any]:
    state = (await here.do("stream_info", stream)).state
    stored = []
    for seq in range(state.first_seq, state.last_seq + 1):
        message = await here.do("get_msg", stream, seq=seq)
        # nats-py's own reading of headers knows ASCII alone.
        message.headers = dict(parse_headers(base64.b64decode(message.hdrs or b"")))
        stored.append(message)
    return stored


async def test_copy_has_payload_and_headers_and_says_what_it_is_of(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source()
        await read(source, 0, 0)
        lines = [
            ("Nats-Msg-Id", "order-7"),
            ("Nats-Expected-Stream", "jobs"),
            ("Noti-Topic", "a"),
            ("X-Mixed-Case", "ü"),
            ("Noti-Dead-Letter-Reason", "of an earlier life"),
        ]
        await here.do("publish", "jobs.noti.x", b"\x00raw", headers=RepeatedHeaders(lines))
        [message] = await bury(source, reason="cannot be\r\ndecoded")
        [copy] = await letters(here)
        assert await here.kept() == 0
        [info] = [await here.do("stream_info", dead_letter.STREAM_NAME)]
    assert (copy.subject, copy.data) == (SUBJECT, b"\x00raw")
    identity = copy.headers["Nats-Msg-Id"].rpartition(":")[0]
    assert identity.startswith("jobs@")
    assert copy.headers == {
        "Noti-Dead-Letter-Reason": "cannot be  decoded",
        "Noti-Dead-Letter-Stream": "jobs",
        "Noti-Dead-Letter-Sequence": "1",
        "Noti-Dead-Letter-Subject": "jobs.noti.x",
        "Noti-Dead-Letter-Time": copy.headers["Noti-Dead-Letter-Time"],
        "Noti-Dead-Letter-Id": "order-7",
        "Nats-Msg-Id": f"{identity}:1",
        "Noti-Topic": "a",
        "X-Mixed-Case": "ü",
    }
    assert message.published_ms > 0
    assert copy.headers["Noti-Dead-Letter-Time"].endswith("+00:00")
    config = info.config
    assert config.subjects == ["noti.dead-letter.>"]
    assert (config.retention, config.storage, config.discard) == ("limits", "file", "old")
    assert (config.max_age, config.max_bytes) == (30 * 24 * 3600, 1024**3)


async def test_reader_of_dead_letters_understands_the_copy(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source()
        await read(source, 0, 0)
        await here.do("publish", "jobs.noti.x", b"{", headers={"Nats-Msg-Id": "7", "A": "b"})
        await bury(source)
        [copy] = await letters(here)
        lines = "".join(f"{name}: {value}\r\n" for name, value in copy.headers.items())
        letter = stored_letter(1, f"NATS/1.0\r\n{lines}\r\n".encode(), copy.data)
    assert (letter.stream, letter.sequence, letter.subject) == ("jobs", 1, "jobs.noti.x")
    assert (letter.reason, letter.original_id, letter.payload) == ("no event", "7", b"{")
    assert letter.headers == (("A", "b"),)


async def test_headers_that_cannot_be_sent_again_are_left_out_or_mended(tmp_path: Path) -> None:
    """The server takes whatever a publisher calls a header."""
    async with stage(tmp_path) as here:
        source = here.source()
        await read(source, 0, 0)
        headers = b"NATS/1.0\r\nno name: 1\r\nX: \xff\r\nX: 2\r\n(: )\r\nLong:\r\n\r\n"
        frame = b"HPUB jobs.noti.x %d %d\r\n%s\r\n" % (len(headers), len(headers), headers)
        stream = await trio.open_tcp_stream("127.0.0.1", here.server.port)
        async with stream:
            await stream.send_all(b'CONNECT {"headers":true}\r\n' + frame + b"PING\r\n")
            while b"PONG" not in await stream.receive_some():
                pass
        await bury(source)
        [copy] = await letters(here)
        assert await here.kept() == 0
    assert not {"no name", "("} & set(copy.headers)
    assert copy.headers["Noti-Dead-Letter-Sequence"] == "1"


async def test_repeated_copy_is_one(tmp_path: Path) -> None:
    """A session may end between the copies and what it tells the server then."""
    async with stage(tmp_path) as here:
        source = here.source(retention="limits")
        await read(source, 0, 0)
        await here.publish(1, 100)
        await bury(source, 100)
        await bury(source, 100)
        assert [copy.headers["Noti-Dead-Letter-Sequence"] for copy in await letters(here)] == [
            str(number) for number in range(1, 101)
        ]


async def test_copy_that_is_read_again_is_not_copied_again(tmp_path: Path) -> None:
    """A mirror does not list what it has; its own dead letters may be among that."""
    async with stage(tmp_path) as here:
        await here.do("add_stream", name=dead_letter.STREAM_NAME, subjects=["noti.dead-letter.>"])
        origin = api.StreamSource(name=dead_letter.STREAM_NAME)
        await here.do("add_stream", name="jobs", mirror=origin)
        await here.do("publish", "noti.dead-letter.other", b"{")
        source = here.source(subjects=(">",))
        await bury(source)
        assert [message.subject for message in await bury(source, 2)] == [
            "noti.dead-letter.other",
            SUBJECT,
        ]
        assert len(await letters(here)) == 2


async def test_server_is_told_the_reason(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source()
        await read(source, 0, 0)
        advisories = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"
        await here.do("add_stream", name="advisories", subjects=[advisories])
        await here.publish(1, 1)
        await bury(source, reason="no category")
        [advisory] = await letters(here, "advisories")
    assert json.loads(advisory.data)["reason"] == "no category"


async def test_stream_that_takes_the_subject_is_used(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="graveyard", subjects=["graves.>"])
        source = here.source(dead_letter="graves.jobs")
        await read(source, 0, 0)
        await here.publish(1, 1)
        await bury(source)
        [copy] = await letters(here, "graveyard")
        assert copy.subject == "graves.jobs"
        names = [info.config.name for info in await here.do("streams_info")]
        assert sorted(names) == ["graveyard", "jobs"]


async def test_stream_of_dead_letters_takes_subjects_of_several_streams(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        for subject in (SUBJECT, "graves.jobs"):
            source = here.source(dead_letter=subject, retention="limits")
            await read(source, 0, 0)
            await here.publish(1, 1)
            await bury(source)
        # The second one is no repetition: it has another subject, but the id of the first.
        info = await here.do("stream_info", dead_letter.STREAM_NAME)
    assert info.config.subjects == ["noti.dead-letter.>", "graves.jobs"]


@pytest.mark.slow
@pytest.mark.parametrize("own_subject", [None, "rejected.orders"])
async def test_readers_that_make_the_stream_of_dead_letters_at_once_lose_none(
    tmp_path: Path, own_subject: str | None
) -> None:
    """Two streams are read, and the first dead letters of both come together."""
    async with stage(tmp_path) as here:
        jobs = here.source()
        settings = {"stream": "orders", "subjects": ("orders.>",)}
        settings["dead_letter"] = own_subject or "noti.dead-letter.orders"
        orders = here.source(**settings)
        refused = copies("refused"), copies("refused", "orders")
        for source in (jobs, orders):
            async with source.open():
                pass  # makes the stream
        for number in range(1, 16):
            await here.do("publish", "jobs.noti.x", b"%d" % number)
            await here.do("publish", "orders.x", b"%d" % number)
            with suppress(NotFoundError):
                await here.do("delete_stream", dead_letter.STREAM_NAME)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bury, jobs)
                nursery.start_soon(bury, orders)
            assert (copies("refused"), copies("refused", "orders")) == refused
            assert len(await letters(here)) == 2


async def test_copy_that_is_too_large_goes_without_what_is_too_large(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source()
        await read(source, 0, 0)
        limit = 1024 * 1024  # the server's default
        await here.do("publish", "jobs.noti.x", b"x" * (limit - 100))
        await here.do("publish", "jobs.noti.x", b"small", headers={"X": "x" * 65_000})
        before = copies("truncated")
        await bury(source, 2)
        first, second = await letters(here)
        assert (first.data, second.data) == (None, b"small")
        assert first.headers["Noti-Dead-Letter-Truncated"] == str(limit - 100)
        assert "X" not in second.headers
        assert copies("truncated") == before + 2
        assert await here.kept() == 0


async def test_full_stream_of_dead_letters_blocks_nobody(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do(
            "add_stream", name="full", subjects=[SUBJECT], max_msgs=1, discard=api.DiscardPolicy.NEW
        )
        source = here.source()
        await read(source, 0, 0)
        await here.publish(1, 3)
        copied, refused = copies("copied"), copies("refused")
        with structlog.testing.capture_logs() as logs:
            await bury(source, 3)
        assert (copies("copied"), copies("refused")) == (copied + 1, refused + 2)
        assert await here.kept() == 0
    [told] = [line for line in logs if line["log_level"] == "error"]
    assert told["event"] == "a dead letter is lost: the server takes no copy"
    assert told["error"] == "maximum messages exceeded"


USERS = """
authorization { users: [
  {user: all, password: all}
  {user: noti, password: noti, permissions: {publish: {deny: ["noti.dead-letter.>"]}}}
] }
"""


async def test_copies_that_are_not_permitted_block_nobody(tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text(USERS)
    arguments = ("--config", str(tmp_path / "nats.conf"))
    async with (
        running_asyncio_loop() as loop,
        nats_server(tmp_path / "store", *arguments) as server,
    ):
        here = Stage(as_user(server, "all"), loop)
        source = Stage(as_user(server, "noti"), loop).source()
        await read(source, 0, 0)
        await here.publish(1, 70)
        refused = copies("refused")
        with structlog.testing.capture_logs() as logs:
            await bury(source, 70)
        assert copies("refused") == refused + 70
        assert await here.kept() == 0
    told = [line for line in logs if line["log_level"] == "error"]
    assert len(told) <= 1  # Throttled, for a flood of them.
    assert all('publish to "noti.dead-letter.jobs"' in line["error"] for line in told)


def as_user(server: NatsServer, name: str) -> NatsServer:
    """Return the same server for another login."""
    same = NatsServer(Path(), server.port)
    same.url = server.url.replace("nats://", f"nats://{name}:{name}@")
    return same
