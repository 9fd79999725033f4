"""Finds a stream, or makes it, and knows which one it is; asyncio."""

from collections.abc import Sequence
from typing import Final

import nats.js.errors
import structlog
from nats.js import api

from noti.errors import SourceUnavailable
from noti.publishing.nats.connection import NatsConnection
from noti.publishing.nats.settings import NatsSettings
from noti.stream_settings import ALL_SUBJECTS, subject_covers, subjects_overlap

log = structlog.get_logger("noti.publishing")

SUBJECTS_OVERLAP: Final = 10065
"""Error code of the server: another stream takes one of the subjects."""


def identity_of(info: api.StreamInfo) -> str:
    """Return which stream this is: one that is deleted and made anew is another.

    A stream that was restored from a backup is the one that was backed up, and has its creation
    time; a mirror is a stream of its own.
    """
    return f"{info.config.name}@{info.created.isoformat() if info.created else ''}"


async def find_or_make(connection: NatsConnection, settings: NatsSettings) -> api.StreamInfo:
    """Return the stream as it is; raises `SourceUnavailable` if it cannot be what is wanted."""
    jetstream = connection.jetstream
    try:
        info = await connection.asked(jetstream.stream_info(settings.stream))
    except nats.js.errors.NotFoundError:
        return await _make(connection, settings)
    _check_dead_letters(info, settings)
    # A mirror, and a stream that copies others, has messages on subjects that it does not list.
    if info.config.mirror is None and not info.config.sources:
        carried = info.config.subjects or []
        for subject in settings.subjects:
            if not any(subjects_overlap(subject, other) for other in carried):
                raise SourceUnavailable(
                    f"stream {settings.stream} takes {', '.join(carried)} and never {subject}:"
                    f" correct the subjects that are read, or: nats stream edit {settings.stream}"
                )
    return info


def _check_dead_letters(info: api.StreamInfo, settings: NatsSettings) -> None:
    """Raise `SourceUnavailable` if copies of dead letters would come back to be read, for ever."""
    subject, carried = settings.dead_letter, info.config.subjects or []
    is_taken = any(subject_covers(pattern, subject) for pattern in carried)
    if is_taken and any(subject_covers(pattern, subject) for pattern in settings.subjects):
        raise SourceUnavailable(
            f"stream {settings.stream} takes what goes to {subject}, and dead letters would be read"
            " as events; name another dead-letter subject (nats_dead_letter), or narrower subjects"
            " to read"
        )


async def _make(connection: NatsConnection, settings: NatsSettings) -> api.StreamInfo:
    if ALL_SUBJECTS in settings.subjects:
        raise SourceUnavailable(
            f"there is no stream {settings.stream}, and no subject is named to make it of; make it"
            f" with: nats stream add {settings.stream}, or name its subjects (nats_subject)"
        )
    config = api.StreamConfig(
        name=settings.stream,
        subjects=list(settings.subjects),
        retention=api.RetentionPolicy(settings.retention),
        storage=api.StorageType(settings.storage),
        max_age=settings.max_age_s,
        max_bytes=settings.max_bytes,
        num_replicas=settings.replicas,
    )
    try:
        info = await connection.asked(connection.jetstream.add_stream(config))
    except nats.js.errors.APIError as error:
        if error.err_code != SUBJECTS_OVERLAP:
            raise
        others = await _streams_of(connection, settings.subjects)
        raise SourceUnavailable(
            f"stream {settings.stream} cannot be made: its subjects {', '.join(settings.subjects)}"
            f" go to stream {', '.join(others) or '?'}; read that one (nats_stream), or choose"
            " subjects that no stream takes"
        ) from error
    log.info("created the stream", stream=settings.stream, retention=settings.retention)
    return info


async def _streams_of(connection: NatsConnection, subjects: Sequence[str]) -> list[str]:
    """Return streams that take messages on these subjects, for one each."""
    names = set()
    for subject in subjects:
        try:
            names.add(await connection.jetstream.find_stream_name_by_subject(subject))
        except nats.js.errors.NotFoundError:
            continue
    return sorted(names)


def check_end(info: api.StreamInfo, after_seq: int) -> None:
    """Raise `SourceUnavailable` if the stream ends before what was read of it.

    It lost its end then: it was restored from a backup, or its server lost what it had not synced.
    New messages would get the sequences of those that were read, and be dropped as such.
    """
    name, last_seq = info.config.name, info.state.last_seq
    if last_seq < after_seq:
        raise SourceUnavailable(
            f"stream {name} ends at message {last_seq}, but {after_seq} was read already: it was"
            " restored from an older backup, or its server lost the end; have it go on behind that"
            f" with: nats stream purge {name} --seq {after_seq + 1}"
        )


async def same_again(connection: NatsConnection, info: api.StreamInfo) -> api.StreamInfo:
    """Return the stream as it is now; raises `SourceUnavailable` if it is another one."""
    name = info.config.name or ""
    try:
        now = await connection.asked(connection.jetstream.stream_info(name))
    except nats.js.errors.NotFoundError:
        raise SourceUnavailable(f"stream {name} was deleted") from None
    if identity_of(now) != identity_of(info):
        raise SourceUnavailable(f"stream {name} was deleted and made anew")
    return now
