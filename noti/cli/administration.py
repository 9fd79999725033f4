"""Asks a node for what only a token of an administrator allows."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import trio

from noti.cli.deadline import no_answer
from noti.cli.http import no_answer_because, tls_context
from noti.client.http import HttpResponse, open_response
from noti.client.strangers import is_strangers
from noti.client.transport_errors import said
from noti.errors import LocalError, MessageInvalid, PeerUnavailable, Unavailable

REJECTION_BYTES_MAX: Final = 64 * 1024
"""What a node says against a request is a line."""


@asynccontextmanager
async def answer_of(
    method: str,
    url: str,
    path: str,
    *,
    token: str | None,
    tls_ca: Path | None,
    timeout_s: float,
    query: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> AsyncIterator[HttpResponse]:
    """Yield the answer of the node at `url`, whose body is read in the context.

    The head of it, and each part of its body, may take `timeout_s` seconds. Raises `LocalError`
    with what the node says when it rejects that, `Unavailable` when it cannot do it now or does not
    answer, `ConfigInvalid` for a bad file, and `MessageInvalid`, which then names the node, when
    the answer is not what was asked for, or another server's. *Cancellation* closes the connection.
    """
    headers = [("Authorization", f"Bearer {token}"), ("Connection", "close")]
    if form:
        headers.append(("Content-Type", "application/x-www-form-urlencoded"))
    try:
        async with open_response(
            f"{url.rstrip('/')}{path}{'?' if query else ''}{urlencode(query or {})}",
            tls_context(tls_ca),
            method=method,
            headers=headers,
            content=urlencode(form or {}).encode(),
            head_s=timeout_s,
            silence_s=timeout_s,
        ) as answer:
            await _check(answer, url)
            yield answer
    except trio.TooSlowError:
        raise Unavailable(no_answer(url, timeout_s)) from None
    except PeerUnavailable as error:
        raise Unavailable(no_answer_because(url, str(error), error)) from None
    except MessageInvalid as error:
        raise MessageInvalid(f"{url}: {error}") from None


async def _check(answer: HttpResponse, url: str) -> None:
    """Raise unless it is the answer of a node that does what it is asked."""
    strange = is_strangers(answer.status, answer.headers)
    if 200 <= answer.status < 300:
        if strange:
            raise MessageInvalid("it answers with a page; is this a noti node?")
        return
    body = await answer.read(REJECTION_BYTES_MAX)
    text = said(answer.status, answer.reason, body.decode(errors="replace"))
    if strange:
        raise MessageInvalid(f"it answers with status {text}")
    kind = Unavailable if answer.status >= 500 else LocalError
    raise kind(f"{url} answers with status {text}")
