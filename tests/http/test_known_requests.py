"""What is remembered of requests, and what never is: on their own, and over real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from noti.address import Address
from noti.http.answers import Answer
from noti.http.config import HttpConfig
from noti.http.heads import HeadState, RequestHead
from noti.http.known_requests import HEAD_BYTES_MAX, KNOWN_MAX, KnownRequests
from noti.http.subscribe import Admission, Opening, StreamRequest, WantedStream
from noti.streams.retained import EDGE
from noti.trio_clock import TrioClock
from tests import promises
from tests.authorization.tokens import authorizer as keyed
from tests.authorization.tokens import token_v0
from tests.http.stage import (
    Client,
    Node,
    admission,
    hub,
    ids,
    notifications,
    running,
    serving,
    until,
)

HUB = "/.well-known/mercure"


def head_of(target: str = f"{HUB}?topic=a", *fields: str, after: bytes = b"") -> RequestHead:
    head = RequestHead()
    lines = [f"GET {target} HTTP/1.1", "Host: hub.example", *fields]
    state = head.feed("\r\n".join(lines).encode() + b"\r\n\r\n" + after)
    assert state is HeadState.COMPLETE
    return head


def wanted_by(head: RequestHead, way_in: Admission | None = None) -> WantedStream:
    way_in = way_in or admission(hub(), Node(), HttpConfig())
    request = StreamRequest(head.path, head.query, head.header, "1.2.3.4")
    wanted = way_in.wanted(request)
    assert not isinstance(wanted, Answer)
    return wanted


def noted(*heads: RequestHead) -> KnownRequests:
    known = KnownRequests()
    for head in heads:
        known.note(head, wanted_by(head))
    return known


def test_a_request_is_known_by_every_byte_of_it() -> None:
    head = head_of()
    known = noted(head)
    found = known.of(head.received)
    assert found is not None
    assert found.wanted == wanted_by(head)
    for other in (
        head.received[:-1],
        head.received + b"G",
        head.received.replace(b"topic=a", b"topic=b"),
        head.received.replace(b"hub.example", b"hub.exampl\xe9"),
        head_of(f"{HUB}?topic=a", "Origin: https://a.example").received,
    ):
        assert known.of(other) is None


def test_origins_hosts_and_cursors_are_told_apart() -> None:
    heads = [
        head_of(f"{HUB}?topic=a", "Origin: https://a.example"),
        head_of(f"{HUB}?topic=a", "Origin: https://b.example"),
        head_of(f"{HUB}?topic=a", "Last-Event-ID: one"),
        head_of(f"{HUB}?topic=a", "Last-Event-ID: two"),
    ]
    known = noted(*heads)
    found = [known.of(head.received) for head in heads]
    assert [(one.origin, one.wanted.requested) for one in found if one is not None] == [
        ("https://a.example", ""),
        ("https://b.example", ""),
        ("", "one"),
        ("", "two"),
    ]


@pytest.mark.parametrize(
    "head",
    [
        head_of(f"{HUB}?topic=a", "Cookie: session=1"),
        head_of(f"{HUB}?topic=a", "COOKIE: mercureauthorization=x"),
        head_of(f"{HUB}?topic=a", "X-Forwarded-For: 9.9.9.9"),
        head_of(f"{HUB}?topic=a", "X-Forwarded-Proto: https"),
        head_of(f"{HUB}?topic=a", "Upgrade: websocket"),
        head_of(after=b"GET / HTTP/1.1\r\n"),
        head_of(f"{HUB}?topic=a&page={'x' * HEAD_BYTES_MAX}"),
    ],
    ids=["cookie", "cookie in capitals", "client", "scheme", "upgrade", "more behind", "long"],
)
def test_a_request_of_somebody_or_of_unusual_form_is_not_remembered(head: RequestHead) -> None:
    assert len(noted(head)) == 0


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("where", ["header", "query", "hidden in the query", "cookie"])
def test_a_request_with_a_token_is_not_remembered(where: str, *, anonymous: bool) -> None:
    shown = token_v0(subscribe=["*"])
    head = {
        "header": head_of(f"{HUB}?topic=a", f"Authorization: Bearer {shown}"),
        "query": head_of(f"{HUB}?topic=a&authorization={shown}"),
        "hidden in the query": head_of(f"{HUB}?topic=a&%61uthorization={shown}"),
        "cookie": head_of(f"{HUB}?topic=a", f"Cookie: mercureAuthorization={shown}"),
    }[where]
    authorizer = keyed(anonymous=anonymous)
    way_in = Admission(hub(), lambda: True, HttpConfig(), authorizer, TrioClock())
    known = KnownRequests()
    known.note(head, wanted_by(head, way_in))
    assert len(known) == 0


@promises.HOSTILE_CLIENT_HARMS_NOBODY
def test_as_many_requests_as_one_likes_are_bounded() -> None:
    known = KnownRequests()
    wanted = wanted_by(head_of())
    for number in range(2 * KNOWN_MAX + 1):
        known.note(head_of(f"{HUB}?topic=a", f"X-Number: {number}"), wanted)
        assert len(known) <= KNOWN_MAX


async def test_a_cursor_that_is_known_begins_where_it_stands_now() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    way_in = admission(there, Node(), HttpConfig())
    wanted = wanted_by(head_of("/category", "Last-Event-ID: id-2"), way_in)
    async with running(there):
        opening = way_in.decide_on(wanted, "1.2.3.4")
        assert isinstance(opening, Opening)
        assert opening.reader.after_seq == 2
        there.reset(notifications(4, 6))
        assert way_in.decide_on(wanted, "1.2.3.4") is None, "another node may know it"
        opening = way_in.decide_on(wanted, "1.2.3.4", caught_up=True)
    assert isinstance(opening, Opening)
    assert opening.reader.after_seq == EDGE
    assert b"noti-gap" in opening.first


@asynccontextmanager
async def client(address: Address) -> AsyncIterator[Client]:
    one = await Client.open(address)
    async with one.stream:
        yield one


async def test_clients_with_the_same_request_are_served_alike_but_for_the_time_to_come_back() -> (
    None
):
    there = hub()
    config = HttpConfig(cors_origins=("https://a.example",))
    browser = ("User-Agent", "Mozilla/5.0")
    async with serving(there, config=config) as address:
        seen: list[tuple[tuple[bytes, bytes], ...]] = []
        for number in range(1, 4):
            async with client(address) as one:
                origin = ("Origin", "https://a.example")
                response = await one.request(f"{HUB}?topic=*", [browser, origin])
                seen.append(tuple(pair for pair in response.headers if pair[0] != b"date"))
                there.publish(notifications(number, number))
                assert ids(await one.read_until(f"id-{number}")) == [f"id-{number}"]
                assert one.text.count("retry: ") == 1
        assert len(set(seen)) == 1
        assert dict(seen[0])[b"access-control-allow-origin"] == b"https://a.example"
        async with client(address) as other:
            origin = ("Origin", "https://b.example")
            response = await other.request(f"{HUB}?topic=*", [browser, origin])
            assert b"access-control-allow-origin" not in dict(response.headers)


async def test_a_request_that_is_known_is_decided_anew_each_time() -> None:
    there, node = hub(clients_max=2), Node()
    async with serving(there, node, HttpConfig(catch_up_wait_s=0.05)) as address:
        async with client(address) as first, client(address) as second:
            for one in (first, second):
                assert (await one.request("/category")).status_code == 200
            await until(lambda: there.clients == 2)
            async with client(address) as third:
                assert (await third.request("/category")).status_code == 429
        await until(lambda: there.clients == 0)
        node.is_ready = False
        async with client(address) as fourth:
            response = await fourth.request("/category")
            assert dict(response.headers)[b"content-length"], "it is told to come back"
        node.is_ready = True
        async with client(address) as fifth:
            assert (await fifth.request("/category")).status_code == 200
            await until(lambda: there.clients == 1)
            there.drain()
            async with client(address) as sixth:
                response = await sixth.request("/category")
                assert b"content-length" in dict(response.headers)


async def test_who_needs_a_token_needs_it_each_time() -> None:
    there = hub()
    authorizer = keyed()
    async with serving(there, authorizer=authorizer) as address:
        bearer = ("Authorization", f"Bearer {token_v0(subscribe=['*'])}")
        for _ in range(2):
            async with client(address) as one:
                assert (await one.request(f"{HUB}?topic=*", [bearer])).status_code == 200
            async with client(address) as one:
                assert (await one.request(f"{HUB}?topic=*")).status_code == 401
