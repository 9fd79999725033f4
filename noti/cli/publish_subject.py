"""Publishes to any subject that a JetStream stream takes: what a node makes an event of, or not."""

import click
import nats.errors
from nats.js.errors import NoStreamResponseError

from noti.cli.asyncio_commands import within
from noti.cli.jetstream import FOREIGN_ERRORS, open_nats, problem
from noti.config import Config
from noti.errors import SourceUnavailable
from noti.publishing.nats.dead_letter import HeaderLines, RepeatedHeaders
from noti.publishing.ports import Draft


async def to_subject(config: Config, subject: str, draft: Draft, timeout_s: float) -> None:
    """Publish one message, and wait until a stream has it.

    What the draft says beside its data becomes headers, which win over a node's settings. Raises
    `SourceUnavailable`.
    """
    if subject.startswith("$JS."):
        raise SourceUnavailable(f"{subject!r} belongs to NATS itself: it would be a command to it")
    headers = RepeatedHeaders(_headers(draft))
    try:
        async with open_nats(config, timeout_s) as client:
            publishing = client.jetstream(timeout=timeout_s).publish(
                subject, draft.data.encode(), timeout=timeout_s, headers=headers
            )
            ack = await within(timeout_s, publishing)
    except NoStreamResponseError:
        raise SourceUnavailable(
            f"no stream takes {subject}; a node makes its stream, or nats stream add"
        ) from None
    except nats.errors.BadSubjectError:
        raise SourceUnavailable(f"{subject!r} is no subject to publish to") from None
    except FOREIGN_ERRORS as error:
        raise SourceUnavailable(problem(config, error, timeout_s)) from None
    again = ", which had it before by its id" if ack.duplicate else ""
    click.echo(f"published to {subject}: {ack.stream} has it as number {ack.seq}{again}")


def _headers(draft: Draft) -> HeaderLines:
    lines = [("Noti-Topic", topic) for topic in draft.topics]
    if draft.id is not None:
        lines.append(("Nats-Msg-Id", draft.id))
    if draft.type:
        lines.append(("Noti-Type", draft.type))
    if draft.private:
        lines.append(("Noti-Private", "true"))
    if draft.retry_ms:
        lines.append(("Noti-Retry", str(draft.retry_ms)))
    return lines
