"""`noti publish` over HTTP, which any node takes: one event, or each line of standard input."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import click
import httpx

from noti.cli.asyncio_commands import read_lines
from noti.cli.nodes import URLS_VARIABLE, urls_in
from noti.client.client import Client
from noti.errors import NotiError
from noti.publishing.events import EVENT_BYTES_MAX
from noti.publishing.ports import Draft

URL: Final = "http://127.0.0.1:8402"
"""The first node of `just demo`."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Whom to ask, and how."""

    urls: Sequence[str]
    token: str | None = field(repr=False)
    tls: ssl.SSLContext
    timeout_s: float

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        """Yield a client; raises `LocalError` for a URL that cannot be asked."""
        # As our other commands, it asks the node itself, and no proxy of the environment.
        async with httpx.AsyncClient(verify=self.tls, trust_env=False) as http:
            yield Client(self.urls or urls_in(URLS_VARIABLE) or [URL], token=self.token, http=http)

    async def publish(self, client: Client, draft: Draft) -> str:
        """Return the event's id once it is committed."""
        return await client.publish(
            draft.topics,
            draft.data,
            id=draft.id,
            type=draft.type or None,
            private=draft.private,
            retry_ms=draft.retry_ms or None,
            within_s=self.timeout_s,
        )


async def one_over_http(target: HttpTarget, draft: Draft) -> None:
    """Publish one event."""
    async with target.open() as client:
        event_id = await target.publish(client, draft)
    click.echo(f"published to {draft.topics[0]}: committed as {event_id}")


async def lines_over_http(target: HttpTarget, draft: Draft, descriptor: int) -> None:
    """Publish each line as the data of an event that is like `draft`, one after the other.

    A failure ends it, and says at which line.
    """
    number = published = 0
    try:
        async with target.open() as client:
            async for lines in read_lines(descriptor, EVENT_BYTES_MAX):
                for line in lines:
                    number += 1
                    if line:
                        await _publish_line(target, client, draft, line, number)
                        published += 1
    finally:
        click.echo(f"published {published} events")


async def _publish_line(
    target: HttpTarget, client: Client, draft: Draft, line: bytes, number: int
) -> None:
    try:
        await target.publish(client, draft._replace(data=line.decode()))
    except (UnicodeDecodeError, NotiError) as error:
        raise NotiError(f"line {number} of standard input: {error}") from error
