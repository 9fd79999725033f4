"""Makes the consumer of a session, by the retention of its stream; asyncio.

Each session begins with a consumer made for it. With an old one, a message that a dead leader had
taken but not acknowledged would come only after AckWait, behind later ones. To a new consumer,
everything that is left comes at once, in stream order.

- **workqueue**: the durable consumer is deleted and made anew. The stream keeps its messages
  meanwhile, and allows no second consumer on the same subjects.
- **interest**: the stream keeps what some consumer has still to acknowledge, so the new one is
  there before the old one goes. Its name ends in a number, one higher than those of before; older
  ones are deleted by name. Whoever deletes has made a higher one: the highest is never deleted, and
  was made with a floor no higher than anybody's now. A reader that is killed in between leaves an
  old one behind, which the next one deletes.
- **limits**: the stream keeps its messages whoever reads them. The consumer is ephemeral, without
  acknowledgements, and starts behind the floor.
"""

import json
import re
import secrets
from typing import Final

import nats.js.errors
import structlog
from nats.js import api

from noti.errors import SourceOccupied, SourceUnavailable
from noti.publishing.nats.connection import REQUEST_S, NatsConnection
from noti.publishing.nats.settings import NatsSettings
from noti.stream_settings import subjects_overlap

log = structlog.get_logger("noti.publishing")

ACK_WAIT_S: Final = 3600.0
"""Redelivery within a session would break the order, so it is put out of reach: a session ends long
before, and the next one begins with a new consumer to which everything unacknowledged comes."""

INACTIVE_S: Final = 30.0
"""The server deletes an ephemeral consumer that nobody asked for so long; a reader asks every two
seconds."""

NUMBER_DIGITS: Final = 8
"""Of the number of a consumer on an interest stream, in hexadecimal."""

_OCCUPIED: Final = (10099, 10100)
"""Error codes of the server: a consumer of a work queue reads these subjects already."""

_NAME_IN_USE: Final = (10013, 10105, 10148)
"""Error codes of the server: there is a consumer of this name, and it is another one."""

_NAMES_PAGES_MAX: Final = 100
"""Pages of 1024 names each."""


async def begin(
    connection: NatsConnection, stream: api.StreamInfo, settings: NatsSettings, after_seq: int
) -> api.ConsumerInfo:
    """Return a new consumer of `stream`, which has all that is to be read above `after_seq`."""
    try:
        match stream.config.retention:
            case api.RetentionPolicy.WORK_QUEUE:
                return await _of_work_queue(connection, settings)
            case api.RetentionPolicy.INTEREST:
                return await _of_interest(connection, settings, after_seq)
            case _:
                return await _of_limits(connection, settings, after_seq)
    except nats.js.errors.APIError as error:
        if error.err_code in _OCCUPIED:
            raise await _occupied(connection, settings) from error
        if error.err_code in _NAME_IN_USE:
            raise SourceUnavailable(
                f"another reader made the consumer of stream {settings.stream} at the same moment"
            ) from error
        raise


async def _of_work_queue(connection: NatsConnection, settings: NatsSettings) -> api.ConsumerInfo:
    await _delete(connection, settings.stream, settings.durable)
    config = _durable(settings.durable, settings)
    # A work queue allows no other policy; it holds little that was acknowledged.
    config.deliver_policy = api.DeliverPolicy.ALL
    return await _make(connection, settings, config)


async def _of_interest(
    connection: NatsConnection, settings: NatsSettings, after_seq: int
) -> api.ConsumerInfo:
    of_ours = re.compile(rf"{re.escape(settings.durable)}-([0-9a-f]{{{NUMBER_DIGITS}}})")
    names = await _names(connection, settings.stream)
    numbers = {name: int(found[1], 16) for name in names if (found := of_ours.fullmatch(name))}
    number = max(numbers.values(), default=0) + 1
    name = f"{settings.durable}-{number:0{NUMBER_DIGITS}x}"
    config = _durable(name, settings)
    # Two readers that begin at the same moment choose the same name. Only one may have it, which
    # takes a difference between the two; were they to share it, the order of messages would tell.
    config.description = f"noti {secrets.token_hex(8)}"
    _start_after(config, after_seq)
    consumer = await _make(connection, settings, config)
    for old in sorted(numbers):
        await _delete(connection, settings.stream, old)
    return consumer


async def _of_limits(
    connection: NatsConnection, settings: NatsSettings, after_seq: int
) -> api.ConsumerInfo:
    config = api.ConsumerConfig(
        name=f"{settings.durable}-{secrets.token_hex(8)}",
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=INACTIVE_S,
        mem_storage=True,
        num_replicas=1,
    )
    _read_subjects(config, settings)
    _start_after(config, after_seq)
    await end(connection)
    connection.ephemeral = (settings.stream, config.name or "")
    return await _make(connection, settings, config)


async def end(connection: NatsConnection) -> None:
    """Tell the server to delete an ephemeral consumer now, if there is one; await no answer.

    It would do so by itself after a while. A leader that comes and goes leaves few behind so.
    """
    if connection.ephemeral is not None and connection.client.is_connected:
        stream, name = connection.ephemeral
        connection.ephemeral = None
        await connection.client.publish(f"{api.DEFAULT_PREFIX}.CONSUMER.DELETE.{stream}.{name}")


def _durable(name: str, settings: NatsSettings) -> api.ConsumerConfig:
    config = api.ConsumerConfig(
        durable_name=name,
        name=name,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,
        max_ack_pending=settings.max_ack_pending,
    )
    _read_subjects(config, settings)
    return config


def _read_subjects(config: api.ConsumerConfig, settings: NatsSettings) -> None:
    # Several are known to nats-server 2.10 and later; one alone to all.
    if len(settings.subjects) == 1:
        config.filter_subject = settings.subjects[0]
    else:
        config.filter_subjects = list(settings.subjects)


def _start_after(config: api.ConsumerConfig, after_seq: int) -> None:
    config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
    config.opt_start_seq = after_seq + 1


async def _make(
    connection: NatsConnection, settings: NatsSettings, config: api.ConsumerConfig
) -> api.ConsumerInfo:
    return await connection.asked(connection.jetstream.add_consumer(settings.stream, config=config))


async def _delete(connection: NatsConnection, stream: str, name: str) -> None:
    try:
        await connection.asked(connection.jetstream.delete_consumer(stream, name))
    except nats.js.errors.NotFoundError:
        log.debug("no consumer to delete", stream=stream, consumer=name)


async def _names(connection: NatsConnection, stream: str) -> list[str]:
    """Return the names of all consumers; nats-py can only list them with all about each."""
    subject = f"{api.DEFAULT_PREFIX}.CONSUMER.NAMES.{stream}"
    names: list[str] = []
    for _ in range(_NAMES_PAGES_MAX):
        body = json.dumps({"offset": len(names)}).encode()
        answer = await connection.asked(connection.client.request(subject, body, timeout=REQUEST_S))
        page = json.loads(answer.data)
        if "error" in page:
            raise nats.js.errors.APIError.from_error(page["error"])
        names += page["consumers"] or []
        if not page["consumers"] or len(names) >= page["total"]:
            break
    return names


async def _occupied(connection: NatsConnection, settings: NatsSettings) -> SourceOccupied:
    """Return the error that names who reads our subjects already, and the ways out."""
    stream, names = settings.stream, []
    for info in await connection.jetstream.consumers_info(stream):
        config = info.config
        filters = config.filter_subjects or [config.filter_subject or ">"]
        if any(subjects_overlap(one, other) for one in filters for other in settings.subjects):
            names.append(info.name)
    remove = "; ".join(f"nats consumer rm {stream} {name}" for name in names)
    if len(names) == 1:
        [name] = names
        return SourceOccupied(
            f"stream {stream} is a work queue that consumer {name} reads already, and both cannot:"
            f" take it over with --nats-durable {name}, or retire it with: {remove}"
        )
    return SourceOccupied(
        f"stream {stream} is a work queue that consumers {', '.join(names)} read already, and"
        f" noti cannot beside them: retire them with: {remove}"
    )
