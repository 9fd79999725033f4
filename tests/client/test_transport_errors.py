"""What httpx raises and answers becomes a clause for a person, without its own words."""

import httpx
import pytest

from noti.client.transport_errors import said, transport_problem
from noti.connection_errors import CLOSED, CUT_SHORT

REQUEST = httpx.Request("POST", "http://nosuch:8402/")


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (httpx.ReadTimeout("", request=REQUEST), "no answer in time"),
        (httpx.ReadError("", request=REQUEST), CLOSED),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), CLOSED),
        (
            httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body (received 1 bytes)"
            ),
            CUT_SHORT,
        ),
        (
            httpx.RemoteProtocolError("illegal request line"),
            "it does not speak HTTP (illegal request line)",
        ),
        (httpx.ProxyError("a proxy"), "a proxy"),
    ],
)
def test_an_exchange_that_failed_is_told_in_our_words(error: httpx.HTTPError, problem: str) -> None:
    assert transport_problem(error) == problem


def test_the_words_of_the_system_win() -> None:
    error = httpx.ReadError("", request=REQUEST)
    error.__cause__ = ConnectionResetError(104, "whatever")
    assert transport_problem(error) == "Connection reset by peer"


def test_a_page_is_not_shown_and_its_server_doubted() -> None:
    page = said(404, "Not Found", "<html>nothing</html>")
    assert page == "404 Not Found; is this a noti node?"
    assert said(401, "Unauthorized", "no\ntoken") == "401: no token"
