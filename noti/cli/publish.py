"""`noti publish`: events from the command line, straight to a node or through JetStream.

- A node takes any event over HTTP (`--url`); its answer means that the cluster has committed it.
- It takes any event over gRPC too (`--rpc`), which needs a certificate instead of a token. Lines
  travel as they come: while a request is under way, the next one gathers in the pipe.
- JetStream takes category events; its acknowledgement means that the stream has it.

What was acknowledged is counted. Over HTTP an event is tried again, at the next node if there are
several, with a key by which it is shown once; otherwise nothing is tried a second time.
"""

import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from noti.address import Address
from noti.certificates.context import mutual_client_context
from noti.certificates.credentials import CertificateUse, load_credentials
from noti.cli.asyncio_commands import read_lines, run_until_signalled, within
from noti.cli.deadline import timeout_option
from noti.cli.http import tls_context, token_file_option, token_in
from noti.cli.jetstream import (
    DEFAULT_NATS_URL,
    FOREIGN_ERRORS,
    STREAM_SETTINGS,
    category_message,
    open_jetstream,
    problem,
    subject_of,
    target_of,
)
from noti.cli.nodes import URLS_VARIABLE, given_urls
from noti.cli.publish_http import URL, HttpTarget, lines_over_http, one_over_http
from noti.cli.publish_subject import to_subject
from noti.cli.settings import as_address, load_config, settings_options
from noti.config import Config
from noti.errors import NotiError, SourceUnavailable
from noti.publishing.events import EVENT_BYTES_MAX, RETRY_MS_MAX, check_data, check_topics
from noti.publishing.nats.category import decode_category
from noti.publishing.nats.ports import SourceMessage
from noti.publishing.ports import Draft
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.rpc.publish_client import PublishStream, open_publish_stream

REQUEST_EVENTS_MAX: Final = 1000
"""As many as a node takes in one request; the bytes are bounded by what is read at once."""


@click.command()
@click.option(
    "--url",
    "urls",
    multiple=True,
    callback=given_urls,
    metavar="URL",
    help="A node's HTTP address; repeat for several of one cluster, of which the next is asked when"
    f" one does not answer. [default: {URLS_VARIABLE}, or {URL}]",
)
@token_file_option
@click.option("--rpc", metavar="HOST:PORT", callback=as_address, help="A node's gRPC address.")
@click.option(
    "--subject", help="With --data: a NATS subject, in JetStream; --topic may be left out."
)
@click.option("--user-id", type=click.IntRange(0, 2**32 - 1), help="Whom it is about.")
@click.option("--from", "category_from", help="The user's category.")
@click.option("--to", "category_to", help="The category that it was matched with.")
@click.option("--topic", "topics", multiple=True, help="Of the event; repeat for several.")
@click.option("--data", help="With --topic: the event. [default: each line of standard input]")
@click.option("--id", "event_id", help="With --data: its id, which is not shown twice.")
@click.option("--type", "event_type", default="", help="With --topic: its name for pages.")
@click.option("--private", is_flag=True, help="With --topic: only for whose token allows a topic.")
@click.option(
    "--retry-ms",
    type=click.IntRange(0, RETRY_MS_MAX),
    default=0,
    help="With --topic: when readers come back that lose their connection.",
)
@timeout_option
@settings_options(*STREAM_SETTINGS, "tls_cert", "tls_key", "tls_ca", "tls_mode")
def publish(
    config_file: Path | None,
    urls: tuple[str, ...],
    token_file: Path | None,
    rpc: Address | None,
    subject: str | None,
    user_id: int | None,
    category_from: str | None,
    category_to: str | None,
    topics: tuple[str, ...],
    data: str | None,
    event_id: str | None,
    event_type: str,
    private: bool,
    retry_ms: int,
    timeout_s: float,
    **options: Any,
) -> None:
    """Publish events, and wait until the cluster has them, or JetStream.

    \b
    noti publish --topic news --data hello --token-file token
    noti publish --url https://noti.example.com --topic /users/7 --private --data '{"unread": 3}'
    tail -f app.log | noti publish --rpc 127.0.0.1:8400 --topic log
    noti publish --subject orders.new --data '{"order": 7}'
    noti publish --user-id 7 --from books --to films

    Over HTTP, a token must allow the topics. Over gRPC, nodes with TLS take events from holders of
    a node certificate only. Category events (--user-id) go to JetStream, or with --rpc to a node.
    With lines, the time for an answer begins anew with each request; a failure says which lines it
    is about.
    """
    _check_texts((category_from, category_to), topics, data)
    category = None
    if user_id is not None and category_from is not None and category_to is not None:
        category = category_message(user_id, category_from, category_to)
    given = (user_id, category_from, category_to)
    is_category = any(one is not None for one in given)
    draft = Draft(topics, data or "", event_id, event_type, retry_ms, private)
    if subject is not None:
        if data is None or is_category or rpc is not None or urls or token_file is not None:
            raise click.UsageError("--subject goes with --data, and to JetStream alone")
        config = load_config(config_file, options, nats_url=DEFAULT_NATS_URL)
        run_until_signalled(to_subject(config, subject, draft, timeout_s))
        return
    _check_options(category, is_category, topics, data, event_id)
    if (urls or token_file is not None) and (rpc is not None or not topics):
        raise click.UsageError("--url and --token-file go with --topic, and not with --rpc")
    if (event_type or private or retry_ms) and not topics:
        raise click.UsageError("--type, --private and --retry-ms go with --topic")
    if topics and rpc is None:
        tls = tls_context(options["tls_ca"])
        target = HttpTarget(urls, token_in(token_file), tls, timeout_s)
        if data is not None:
            run_until_signalled(one_over_http(target, draft))
        else:
            run_until_signalled(lines_over_http(target, draft, sys.stdin.fileno()))
        return
    config = load_config(config_file, options, nats_url=DEFAULT_NATS_URL)
    if rpc is None:
        assert category is not None
        run_until_signalled(_to_jetstream(config, category, timeout_s))
        return
    node = _PublishTarget(rpc, _tls(config), config.tls_mode == "permissive", timeout_s)
    if category is not None:
        run_until_signalled(_one_to_node(node, _as_bridge(config, category)))
    elif data is not None:
        run_until_signalled(_one_to_node(node, draft))
    else:
        run_until_signalled(_lines_to_node(node, draft))


def _check_options(
    category: CategoryMessage | None,
    is_category: bool,
    topics: Sequence[str],
    data: str | None,
    event_id: str | None,
) -> None:
    """Raise `UsageError` unless they say exactly one thing to publish."""
    if topics and is_category:
        raise click.UsageError("give --topic, or --user-id, --from and --to; not both")
    if not topics and category is None:
        raise click.UsageError("give --topic, or --user-id, --from and --to")
    if data is not None and not topics:
        raise click.UsageError("--data goes with --topic")
    if event_id is not None and data is None:
        raise click.UsageError("--id goes with --data")
    if topics and data is None and sys.stdin is None:
        raise click.UsageError("give --data: standard input is closed")


def _check_texts(categories: Sequence[str | None], topics: Sequence[str], data: str | None) -> None:
    """Raise `MessageInvalid` for what no node would take, before any is asked."""
    check_topics(topics)
    for text in (*categories, data):
        check_data(text or "")


async def _to_jetstream(config: Config, category: CategoryMessage, timeout_s: float) -> None:
    subject = subject_of(config, category.category_from)
    try:
        async with open_jetstream(config, timeout_s) as jetstream:
            publishing = jetstream.publish(
                subject, bytes(category), stream=target_of(config)[0], timeout=timeout_s
            )
            ack = await within(timeout_s, publishing)
    except FOREIGN_ERRORS as error:
        raise SourceUnavailable(problem(config, error, timeout_s)) from None
    click.echo(f"published to {subject}: {ack.stream} has it as number {ack.seq}")


def _as_bridge(config: Config, category: CategoryMessage) -> Draft:
    """Return what the bridge would make of the message, so that it is the same event either way."""
    subject = subject_of(config, category.category_from)
    message = SourceMessage(0, subject, bytes(category))
    content = decode_category(message, time.time_ns() // 1_000_000)
    check_data(content.data)
    return Draft((subject,), content.data)


@dataclass(frozen=True, slots=True)
class _PublishTarget:
    """Whom to ask, and how."""

    address: Address
    tls: ssl.SSLContext | None
    plain_too: bool
    timeout_s: float

    def open(self) -> AbstractAsyncContextManager[PublishStream]:
        return open_publish_stream(
            self.address, self.tls, plain_too=self.plain_too, within_s=self.timeout_s
        )


async def _one_to_node(node: _PublishTarget, draft: Draft) -> None:
    async with node.open() as stream:
        [event_id] = await stream.publish([draft])
    click.echo(f"published to {draft.topics[0]}: committed as {event_id}")


async def _lines_to_node(node: _PublishTarget, draft: Draft) -> None:
    """Publish what comes until it ends; a failure ends it, and says from which line on.

    Each line is the data of an event that is like `draft` otherwise.
    """
    number = published = 0
    complete = False
    try:
        async with node.open() as stream:
            async for lines in read_lines(sys.stdin.fileno(), EVENT_BYTES_MAX):
                for start in range(0, len(lines), REQUEST_EVENTS_MAX):
                    some = lines[start : start + REQUEST_EVENTS_MAX]
                    published += await _publish_lines(stream, draft, some, number)
                    number += len(some)
        complete = True
    finally:
        so_far = "" if complete else f", all of the first {number} lines"
        click.echo(f"published {published} events{so_far}")


async def _publish_lines(
    stream: PublishStream, draft: Draft, lines: Sequence[bytes], before: int
) -> int:
    """Publish lines, of which `before` came earlier; return how many were not empty."""
    first, last = before + 1, before + len(lines)
    try:
        drafts = [draft._replace(data=line.decode()) for line in lines if line]
        if drafts:
            await stream.publish(drafts)
    except (UnicodeDecodeError, NotiError) as error:
        where = f"line {first}" if first == last else f"lines {first} to {last}"
        raise NotiError(f"{where} of standard input: {error}") from error
    return len(drafts)


def _tls(config: Config) -> ssl.SSLContext | None:
    """Return how to speak to nodes; None for plain text. Raises `ConfigInvalid`."""
    if config.tls_cert is None:
        return None
    assert config.tls_key is not None, "`Config` saw to it"
    return mutual_client_context(
        load_credentials(config.tls_cert, config.tls_key, config.tls_ca, use=CertificateUse.NODE)
    )
