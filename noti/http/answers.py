"""Makes whole answers: to what is invalid or rejected in the dialect in use, and for people."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from noti.authorization.grant import Dialect
from noti.authorization.rejection import TokenRejected, answer_to
from noti.http.heads import Headers
from noti.http.response_headers import NOT_STORED

PLAIN: Final = "text/plain; charset=utf-8"
PROBLEM: Final = "application/problem+json"
"""RFC 9457."""
RETRY_AFTER: Final = ("Retry-After", "1")
"""A leader is elected, and a backlog is worked off, within about a second."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; no stream."""

    status: int
    headers: Headers
    body: bytes
    awaits_keys: bool = False
    """Whether another one may be right once newer keys are here: wait for them, and ask again."""


def plain(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer for people; `text` is a sentence."""
    return Answer(status, [("Content-Type", PLAIN), *headers], f"{text}\n".encode())


def invalid(dialect: Dialect, text: str, status: int = 400) -> Answer:
    """Return how an invalid request is answered in a dialect; `text` is a sentence."""
    if dialect is Dialect.V0:
        return plain(status, text, NOT_STORED)
    problem = {"title": HTTPStatus(status).phrase, "status": status, "detail": text}
    return Answer(status, [("Content-Type", PROBLEM), NOT_STORED], json.dumps(problem).encode())


def rejected(rejection: TokenRejected, hub_url: str, *, awaits_keys: bool = False) -> Answer:
    """Return how a request without a usable token is answered."""
    status, headers, body = answer_to(rejection, hub_url)
    return Answer(status, [*headers, NOT_STORED], body, awaits_keys)
