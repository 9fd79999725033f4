"""Reads the headers of a request that came the ordinary way as those that came the short way."""

from collections.abc import Callable

from quart import Request


def header_of(request: Request) -> Callable[[str], str]:
    """Return a function that returns a header's value by its lower-case name, empty without one.

    Several are joined: by commas (RFC 9110, 5.2), those of Cookie, which HTTP/2 splits, by
    semicolons (RFC 9113, 8.2.3).
    """

    def header(name: str) -> str:
        return ("; " if name == "cookie" else ", ").join(request.headers.getlist(name))

    return header
