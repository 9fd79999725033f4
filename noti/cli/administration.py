"""Asks a node for what only a token of an administrator allows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from noti.cli.http import tls_context, token_in
from noti.errors import LocalError, Unavailable


@contextmanager
def answer_of(
    method: str,
    url: str,
    path: str,
    *,
    token_file: Path,
    tls_ca: Path | None,
    timeout_s: float,
    query: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> Iterator[httpx.Response]:
    """Yield the answer of the node at `url`, whose body is read in the context.

    Each part of it may take `timeout_s` seconds. Raises `LocalError` with what the node says when
    it rejects that, `Unavailable` when it cannot do it now or does not answer, and `ConfigInvalid`
    for a bad file.
    """
    token = token_in(token_file)
    try:
        with httpx.stream(
            method,
            url.rstrip("/") + path,
            params=query,
            data=form,
            headers={"Authorization": f"Bearer {token}"},
            verify=tls_context(tls_ca),
            trust_env=False,  # it asks the node itself, and shows its token to no proxy
            timeout=timeout_s,
        ) as answer:
            if answer.is_server_error:
                answer.read()
                raise Unavailable(f"{url} answers with status {_said(answer)}")
            if not answer.is_success:
                answer.read()
                raise LocalError(f"{url} answers with status {_said(answer)}")
            yield answer
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Unavailable(f"{url} does not answer: {str(error) or type(error).__name__}") from None


def _said(answer: httpx.Response) -> str:
    return f"{answer.status_code}: {' '.join(answer.text.split())[:500]}"
