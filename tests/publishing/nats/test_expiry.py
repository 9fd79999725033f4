"""What a stream deleted unread is counted and told, once."""

from pathlib import Path

import pytest
import structlog.testing
from prometheus_client import REGISTRY

from tests.publishing.nats.test_consumers import Stage, fetch, stage

pytestmark = pytest.mark.interop

EVENT = "the stream deleted messages before they were read"


def expired() -> float:
    return REGISTRY.get_sample_value("noti_source_expired_total", {"stream": "jobs"}) or 0.0


async def publish_to(here: Stage, subject: str, count: int) -> None:
    for _ in range(count):
        await here.do("publish", subject, b"")


async def test_messages_deleted_unread_are_told_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>"], max_msgs=3)
        await here.publish(1, 9)
        source, before = here.source(), expired()
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                async with source.open() as session:
                    await session.begin(4)
                    assert [one.seq for one in await fetch(session, 3)] == [7, 8, 9]
        assert expired() == before + 2
        [told] = [line for line in logs if line["event"] == EVENT]
        assert (told["first_seq"], told["last_seq"]) == (5, 6)
        assert not told["perhaps_of_others"]


async def test_messages_deleted_in_a_session_are_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>"], max_msgs=3)
        source, before = here.source(), expired()
        async with source.open() as session:
            await session.begin(0)
            await here.publish(1, 2)
            await fetch(session, 2)
            # Nobody asks for messages meanwhile.
            await session.fetch(1, 2.5)
            await here.do("purge_stream", "jobs")
            await here.publish(3, 3)
            assert [one.seq for one in await fetch(session, 1)] == [3]
            assert expired() == before
            await here.do("delete_msg", "jobs", 3)
            await here.publish(4, 8)
            messages = await fetch(session, 1)
            assert expired() == before + messages[0].seq - 4


async def test_messages_of_subjects_that_are_not_read_are_no_gap(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>", "other"])
        source, before = here.source(), expired()
        async with source.open() as session:
            await session.begin(0)
            await publish_to(here, "jobs.noti.x", 1)
            await publish_to(here, "other", 3)
            await publish_to(here, "jobs.noti.x", 1)
            assert [one.seq for one in await fetch(session, 2)] == [1, 5]
        assert expired() == before


async def test_gap_that_may_be_of_others_is_told_as_such(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>", "other"], max_msgs=1)
        source, before = here.source(), expired()
        await publish_to(here, "other", 3)
        await publish_to(here, "jobs.noti.x", 1)
        with structlog.testing.capture_logs() as logs:
            async with source.open() as session:
                await session.begin(1)
                assert [one.seq for one in await fetch(session, 1)] == [4]
        assert expired() == before + 2
        [told] = [line for line in logs if line["event"] == EVENT]
        assert told["perhaps_of_others"]


async def test_first_reader_of_an_old_stream_misses_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>"], max_msgs=1)
        await here.publish(1, 3)
        source, before = here.source(), expired()
        async with source.open() as session:
            await session.begin(0)
            assert [one.seq for one in await fetch(session, 1)] == [3]
        assert expired() == before
