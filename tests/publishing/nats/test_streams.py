"""Which stream it is, and whether it can be what is wanted."""

from pathlib import Path

import pytest
from nats.js import api

from noti.errors import SourceUnavailable
from tests.publishing.nats.test_consumers import fetch, read, stage


@pytest.mark.interop
async def test_stream_that_is_read_whole_is_not_made(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source(stream="orders", subjects=(">",))
        with pytest.raises(SourceUnavailable, match=r"no stream orders.*nats stream add orders"):
            await read(source, 0, 0)
        await here.do("add_stream", name="orders", subjects=["a.>", "b"])
        for subject in ("a.1", "b", "a.2"):
            await here.do("publish", subject, b"")
        assert await read(source, 0, 3) == [1, 2, 3]


@pytest.mark.interop
async def test_stream_that_never_has_the_subject_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.a", "jobs.b"])
        with pytest.raises(SourceUnavailable, match=r"takes jobs\.a, jobs\.b and never"):
            await read(here.source(), 0, 0)


@pytest.mark.interop
async def test_stream_whose_dead_letters_would_come_back_is_refused(tmp_path: Path) -> None:
    """Otherwise each copy is a dead letter itself, and so on: one message fills the disk."""
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="noti", subjects=["noti.>"])
        source = here.source(stream="noti", subjects=(">",), dead_letter="noti.dead-letter.noti")
        with pytest.raises(SourceUnavailable, match=r"takes what goes to noti\.dead-letter\.noti"):
            await read(source, 0, 0)
        source = here.source(stream="noti", subjects=("noti.x",), dead_letter="noti.dead.noti")
        assert await read(source, 0, 0) == []


@pytest.mark.interop
async def test_mirror_has_subjects_that_it_does_not_list(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="origin", subjects=["jobs.noti.>"])
        await here.do("add_stream", name="jobs", mirror=api.StreamSource(name="origin"))
        await here.publish(1, 3)
        assert await read(here.source(), 0, 3) == [1, 2, 3]


@pytest.mark.interop
async def test_subjects_of_another_stream_are_told_with_its_name(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="orders", subjects=["jobs.>"])
        with pytest.raises(SourceUnavailable) as caught:
            await read(here.source(), 0, 0)
        assert "stream jobs cannot be made: its subjects jobs.noti.> go to stream orders" in str(
            caught.value
        )


@pytest.mark.interop
async def test_stream_made_anew_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source(retention="limits")
        async with source.open() as session:
            await here.do("delete_stream", "jobs")
            await here.do("add_stream", name="jobs", subjects=["jobs.noti.>"])
            with pytest.raises(SourceUnavailable, match="stream jobs was deleted and made anew"):
                await session.begin(0)


@pytest.mark.interop
@pytest.mark.parametrize("retention", ["workqueue", "interest", "limits"])
async def test_stream_that_lost_its_end_is_told_and_the_way_out_works(
    tmp_path: Path, retention: str
) -> None:
    async with stage(tmp_path) as here:
        source = here.source(retention=retention)
        await read(source, 0, 0)
        await here.publish(1, 3)
        with pytest.raises(SourceUnavailable, match="nats stream purge jobs --seq 8") as caught:
            await read(source, 7, 0)
        assert "ends at message 3, but 7 was read already" in str(caught.value)
        await here.do("purge_stream", "jobs", seq=8)
        await here.publish(4, 4)
        async with source.open() as session:
            await session.begin(7)
            assert [message.seq for message in await fetch(session, 1)] == [8]
