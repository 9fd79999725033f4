"""Joins Quart to decisions: requests are read as those that came the short way, answers written."""

from collections.abc import Callable

from quart import Request, Response
from werkzeug.datastructures import Headers

from noti.http.answers import Answer
from noti.http.config import HttpConfig
from noti.http.hub_url import hub_url_of


def header_of(request: Request) -> Callable[[str], str]:
    """Return a function that returns a header's value by its lower-case name, empty without one.

    Several are joined: by commas (RFC 9110, 5.2), those of Cookie, which HTTP/2 splits, by
    semicolons (RFC 9113, 8.2.3).
    """

    def header(name: str) -> str:
        return ("; " if name == "cookie" else ", ").join(request.headers.getlist(name))

    return header


def query_of(request: Request) -> str:
    """Return the query as it stands in the target, its bytes as characters."""
    query: bytes = request.query_string
    return query.decode("latin-1")


def hub_url_in(request: Request, config: HttpConfig) -> str:
    """Return the hub's URL as the sender of a request knows it."""
    return hub_url_of(header_of(request), request.scheme, request.remote_addr or "", config)


def response_of(answer: Answer) -> Response:
    """Return an answer as Quart has it."""
    return Response(answer.body, status=answer.status, headers=Headers(answer.headers))
