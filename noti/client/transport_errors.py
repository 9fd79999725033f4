"""Says what came of an HTTP exchange through httpx that failed, for a person."""

from typing import Final

import httpx

from noti.connection_errors import CLOSED, CUT_SHORT, origin_of, reason_of

TEXT_CHARACTERS_MAX: Final = 500
"""Of what a server says; a line for a person."""


def transport_problem(error: httpx.HTTPError) -> str:
    """Return why there is no answer, as a clause about the server."""
    try:
        url = error.request.url
    except RuntimeError:  # it has none: the request was not even made
        url = httpx.URL()
    if origin_of(error) is not None:
        return reason_of(error, url.host)
    match error:
        case httpx.TimeoutException():
            return "no answer in time"
        case httpx.RemoteProtocolError() if "without sending complete" in str(error):
            return CUT_SHORT
        case httpx.RemoteProtocolError() if "disconnected" not in str(error):
            return f"it does not speak HTTP ({error})"
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return CLOSED
        case _:
            return str(error) or type(error).__name__


def said(status: int, reason: str, body: str) -> str:
    """Return what a server says against a request: its status, and the text unless it is a page."""
    text = " ".join(body.split())[:TEXT_CHARACTERS_MAX]
    if not text or "<" in text:
        return f"{status} {reason}; is this a noti node?"
    return f"{status}: {text}"
