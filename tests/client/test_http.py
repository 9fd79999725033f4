"""One request over real sockets: what is sent, what is read, and what is not waited for."""

import ssl
from pathlib import Path

import pytest
import trio

from noti.client.http import open_response
from noti.errors import LocalError, MessageInvalid, NotiError, PeerUnavailable
from tests.certificates.authority import Wanted, authority, issue
from tests.certificates.bad import peer_context
from tests.client.scripted import Script, over_tls, scripted
from tests.http.stage import LIMIT_S

PLAIN = ssl.create_default_context()
ANSWER = b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-Some: Thing\r\n\r\nhello"


async def test_head_and_body_are_read_and_what_precedes_the_head_is_skipped() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with scripted(hints + ANSWER) as (_, url), open_response(url, PLAIN) as response:
        assert (response.status, response.reason) == (200, "Fine")
        assert response.headers["x-some"] == "Thing"
        assert await response.read(5) == b"hello"


async def test_a_request_has_its_method_headers_and_content() -> None:
    async with scripted(ANSWER) as (script, url):
        async with open_response(
            f"{url}?a=b#c", PLAIN, method="PATCH", headers=[("X", "y")], content=b"\r\n\r\n"
        ):
            pass
        assert script.requests[0].startswith("PATCH /events?a=b HTTP/1.1\r\n")
        host = url.removeprefix("http://").removesuffix("/events")
        assert f"\r\nHost: {host}\r\n" in script.requests[0]
        assert script.requests[0].endswith("X: y\r\nContent-Length: 4\r\n\r\n\r\n\r\n")


async def test_a_longer_body_than_granted_is_rejected() -> None:
    async with scripted(ANSWER) as (_, url), open_response(url, PLAIN) as response:
        with pytest.raises(MessageInvalid, match="more than 4 bytes"):
            await response.read(4)


@pytest.mark.parametrize(
    ("answer", "error", "problem"),
    [
        (b"", PeerUnavailable, "closed the connection without an answer"),
        (ANSWER[:20], PeerUnavailable, "before its answer was complete"),
        (ANSWER[:-1], PeerUnavailable, "before its answer was complete"),
        (b"nonsense\r\n\r\n", MessageInvalid, "that is no HTTP"),
        (b"HTTP/1.1 200 Fine\r\nX: " + b"x" * 200_000, MessageInvalid, "that is no HTTP"),
    ],
    ids=["nothing", "half a head", "half a body", "nonsense", "an endless head"],
)
async def test_what_is_no_whole_answer_is_rejected(
    answer: bytes, error: type[NotiError], problem: str
) -> None:
    async with scripted(answer) as (_, url):
        with pytest.raises(error, match=problem):
            async with open_response(url, PLAIN) as response:
                await response.read(100)


async def test_head_and_body_are_waited_for_no_longer_than_granted() -> None:
    half_a_head = b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n"
    async with scripted(half_a_head, half_a_head + b"\r\n") as (_, url):
        with pytest.raises(trio.TooSlowError):
            async with open_response(url, PLAIN, head_s=0.05):
                pytest.fail("there is no head")
        async with open_response(url, PLAIN, silence_s=0.05) as response:
            with pytest.raises(trio.TooSlowError):
                await response.read_some()


async def test_a_port_where_nobody_listens_is_reported() -> None:
    async with scripted() as (_, url):
        pass
    with trio.fail_after(LIMIT_S), pytest.raises(PeerUnavailable, match="Connection refused"):
        async with open_response(url, PLAIN):
            pass


async def test_a_certificate_of_another_ca_is_not_spoken_to(tmp_path: Path) -> None:
    ca, other = authority(), authority("other")
    shown = peer_context(issue(Wanted(ips=("127.0.0.1",)), ca), tmp_path, server=True)
    script = Script([ANSWER])
    async with over_tls(script, shown) as url:
        doubting = ssl.create_default_context(cadata=other.pem.decode())
        with pytest.raises(PeerUnavailable, match="a CA that is not") as rejected:
            async with open_response(url, doubting):
                pass
        assert isinstance(rejected.value.__cause__, ssl.SSLCertVerificationError)
        assert script.requests == []
        trusting = ssl.create_default_context(cadata=ca.pem.decode())
        async with open_response(url, trusting) as response:
            assert await response.read(5) == b"hello"


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "127.0.0.1:80", "http://", "http://x:y/", "http://x:0/", "http://x/a b"],
)
async def test_a_url_that_cannot_be_asked_for_is_reported(url: str) -> None:
    with pytest.raises(LocalError, match="cannot be asked for"):
        async with open_response(url, PLAIN):
            pass


async def test_a_header_that_would_end_the_head_is_not_sent() -> None:
    async with scripted(ANSWER) as (script, url):
        with pytest.raises(LocalError, match="cannot be asked for"):
            async with open_response(url, PLAIN, headers=[("A", "b\r\nC: d")]):
                pass
        assert script.requests == []
