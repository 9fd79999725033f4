"""Promises of publishing over HTTP whichever way a request comes in: the fast one, or Quart's."""

import socket

import h11
import pytest
import trio

from noti.address import Address
from noti.authorization.grant import Grant
from noti.errors import NotiError, ProposalUncertain, TooLarge, Unavailable
from noti.http.answers import Answer
from noti.http.config import HttpConfig
from noti.http.forms import FORM
from noti.http.publish import PublishRequest
from noti.http.publish_endpoint import PublishEndpoint
from noti.publishing.ports import Draft
from tests import promises
from tests.http.publishing_stage import PATH, Log, Publishers, form, post, publishing
from tests.http.stage import LIMIT_S, until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WAYS = ("plain", "chunked", "1.0")


async def exchange(address: Address, data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send one request; return the answer's status, headers and body."""
    with trio.fail_after(LIMIT_S):
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(data)
            http = h11.Connection(h11.CLIENT)
            http.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
            body = b""
            head: h11.Response | None = None
            while True:
                match http.next_event():
                    case h11.NEED_DATA:
                        http.receive_data(await stream.receive_some(65536))
                    case h11.Response() as response:
                        head = response
                    case h11.Data(data=part):
                        body += bytes(part)
                    case _:
                        assert head is not None
                        return head.status_code, dict(head.headers), body


def sent(way: str, body: bytes, token: str, content_type: str, *headers: str) -> bytes:
    if way == "chunked":
        whole = post(b"", token, "Transfer-Encoding: chunked", *headers, content_type=content_type)
        whole = whole.replace(b"Content-Length: 0\r\n", b"")
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return whole + chunk + b"0\r\n\r\n"
    whole = post(body, token, *headers, content_type=content_type)
    return whole.replace(b"HTTP/1.1", b"HTTP/1.0", 1) if way == "1.0" else whole


@promises.ANSWERED_AFTER_MAJORITY
@pytest.mark.parametrize("way", WAYS)
async def test_an_event_is_committed_and_answered_with_its_id(way: str) -> None:
    log = Log()
    async with publishing(log) as address:
        body = form(("topic", "a"), ("topic", "b"), data="ü", id="x", type="t", retry="3")
        status, headers, answer = await exchange(
            address, sent(way, body, "old", FORM, "Idempotency-Key: k", f"traceparent: {TRACE}")
        )
    assert (status, answer) == (200, b"x")
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert headers[b"x-content-type-options"] == b"nosniff"
    [draft] = log.drafts
    assert draft == Draft(("a", "b"), "ü", "x", "t", 3, False, "k", TRACE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "body", "token", "content_type"),
    [
        (400, b"data=x", "old", FORM),
        (400, b"", "old", FORM),
        (401, b"topic=a", "", FORM),
        (401, b"topic=a", "bad", FORM),
        (403, b"topic=b", "old-a", FORM),
        (413, b"topic=a" * 2000, "old", FORM),
        (415, b"{}", "old", "application/json"),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_reaches_the_log(
    way: str, status: int, body: bytes, token: str, content_type: str
) -> None:
    log = Log()
    async with publishing(log, HttpConfig(publish_body_bytes_max=4096)) as address:
        got, headers, text = await exchange(address, sent(way, body, token, content_type))
    assert got == status
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert text.endswith(b"\n")
    assert len(text.splitlines()) == 1
    assert log.drafts == []


@promises.ANSWERED_AFTER_MAJORITY
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (413, TooLarge("an event of 9 bytes; 8 are allowed")),
        (503, Unavailable("the cluster has no leader; retry later")),
        (504, ProposalUncertain("nobody answered")),
    ],
)
async def test_failures_of_the_cluster_are_told(way: str, status: int, failure: NotiError) -> None:
    async with publishing(Log(failure=failure)) as address:
        got, headers, _ = await exchange(address, sent(way, b"topic=a", "old", FORM))
    assert got == status
    assert (b"retry-after" in headers) == (status == 503)


@pytest.mark.parametrize("way", ["chunked", "1.0"])
async def test_a_body_for_which_there_is_no_memory_is_refused_for_now(way: str) -> None:
    config = HttpConfig(publish_body_bytes_max=4096, publish_bodies_bytes_max=3)
    async with publishing(Log(), config) as address:
        got, headers, _ = await exchange(address, sent(way, b"topic=a", "old", FORM))
    assert got == 503
    assert b"retry-after" in headers


@pytest.mark.parametrize("way", WAYS)
async def test_who_disconnects_does_not_cancel_the_commit(way: str) -> None:
    log = Log(held=True)
    async with publishing(log) as address:
        with socket.create_connection(address) as sock:
            sock.sendall(sent(way, b"topic=a", "old", FORM))
            await until(lambda: len(log.waiting) == 1)
        log.commit()  # whoever waits is told, or is gone
    assert len(log.drafts) == 1


async def test_other_methods_are_refused_with_those_that_there_are() -> None:
    async with publishing(Log()) as address:
        whole = post().replace(b"POST", b"PUT", 1)
        status, headers, _ = await exchange(address, whole)
    assert status == 405
    assert {b"GET", b"POST"} <= set(headers[b"allow"].split(b", "))


async def test_other_addresses_take_no_large_bodies() -> None:
    async with publishing(Log()) as address:
        whole = post(b"x" * 100_000).replace(PATH.encode(), b"/nowhere", 1)
        status, _, _ = await exchange(address, whole)
    assert status in (404, 413)


def test_a_node_that_may_not_know_yet_who_is_revoked_takes_nothing() -> None:
    ready = False
    endpoint = PublishEndpoint(Log(), Publishers(), HttpConfig(), ready=lambda: ready)
    headers = {"authorization": "Bearer old", "content-type": FORM, "content-length": "1"}
    request = PublishRequest(PATH, "", lambda name: headers.get(name, ""), "192.0.2.1", "http://h")
    early = endpoint.admit(request)
    assert isinstance(early, Answer)
    assert early.status == 503
    assert ("Retry-After", "1") in early.headers
    ready = True
    assert isinstance(endpoint.admit(request), Grant)
    ready = False  # later, whoever cannot reach a majority commits nothing anyway
    assert isinstance(endpoint.admit(request), Grant)
