"""What is decided about a request for a stream."""

import json

import pytest
import trio

from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.grant import Action, Dialect, Grant
from noti.authorization.keys import TrustedKeys, read_jwks
from noti.history.selectors import ALL_TOPICS, Selector, exact_matcher, topic_selector
from noti.http.subscribe import accepts_streams, rights_of
from noti.streams import audience
from noti.streams.audience import Audience, View
from tests.authorization.tokens import jwk, private_key, signed
from tests.http.mercure_stage import HUB, bearer
from tests.http.stage import client, hub, serving
from tests.http.websocket_stage import HANDSHAKE, Speaker

ALL = frozenset({ALL_TOPICS})


def of(*texts: str) -> frozenset[Selector]:
    return frozenset(map(topic_selector, texts))


@pytest.mark.parametrize(
    ("subscribe", "asked", "rights"),
    [
        (of(), of("a"), of()),
        (of("*", "a"), of("b"), ALL),
        (of("a", "/u/7"), of("a"), ALL),
        (of("/u/{id}", "/x"), of("/u/7", "/u/8"), ALL),
        (of("/u/{id}", "/x"), of("/u/{id}"), ALL),
        (of("/u/7"), of("/u/{id}"), of("/u/7")),
        (of("/u/7"), ALL, of("/u/7")),
        # An event may be of both topics: this reader sees it.
        (of("b"), of("a"), of("b")),
    ],
)
def test_readers_who_may_see_all_that_they_ask_for_share_an_audience(
    subscribe: frozenset[Selector], asked: frozenset[Selector], rights: frozenset[Selector]
) -> None:
    assert rights_of(Grant(Dialect.V0, subscribe=subscribe), asked) == rights


def test_a_right_to_a_text_that_looks_like_a_template_is_one_to_that_text() -> None:
    exact = frozenset({exact_matcher("/u/{id}")})
    assert rights_of(Grant(Dialect.V1, subscribe=exact), of("/u/7")) == exact


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("", True),
        ("*/*", True),
        ("text/*;q=0.1", True),
        ("Text/Event-Stream", True),
        ("text/html, */*;q=0.8", True),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/event-stream;q=0, */*", False),
        ("text/*;q=0.000, */*", False),
        ("*/*;q=0", False),
    ],
)
def test_accept_is_read_by_its_most_specific_range(accept: str, accepted: bool) -> None:
    assert accepts_streams(accept) == accepted


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize("comes", [True, False])
async def test_a_token_with_an_unknown_key_waits_for_newer_keys_once(
    comes: bool, websocket: bool
) -> None:
    """An `EventSource` that got 401 after a change of keys would never come back."""
    keys = TrustedKeys()
    asked = 0

    async def newer_keys() -> None:
        nonlocal asked
        asked += 1
        await trio.lowlevel.checkpoint()
        if comes:
            keys.put("issuer", Action, read_jwks(json.dumps(new).encode(), "issuer").keys)

    old, new = jwk("ES256", "old"), jwk("EdDSA", "new")
    keys.put("issuer", Action, read_jwks(json.dumps(old).encode(), "issuer").keys)
    settings = AuthorizationConfig(anonymous=True)
    who = Authorizer(settings, keys, newer_keys=newer_keys)
    claims = {"mercure": {"subscribe": ["*"]}}
    token = signed(claims, private_key("EdDSA"), "EdDSA", {"kid": "new"})
    async with serving(hub(), authorizer=who) as address:
        if websocket:
            headers = [*HANDSHAKE, bearer(token)]
            async with Speaker.open(address, f"{HUB}?topic=a", headers) as speaker:
                assert speaker.status == (101 if comes else 401)
        else:
            async with client(address) as one:
                response = await one.request(f"{HUB}?topic=a", [bearer(token)])
                assert response.status_code == (200 if comes else 401)
    assert asked == 1


async def test_who_asks_for_one_pattern_too_many_is_asked_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audience, "PATTERNS_ALIKE_MAX", 1)
    there = hub()
    there.feed.watch(Audience(View.MERCURE, of("{a}/1")))
    address = "/.well-known/mercure?topic="
    async with serving(there) as node:
        async with client(node) as one:
            assert (await one.request(f"{address}%7Ba%7D/2")).status_code == 429
            assert "patterns that begin like one of yours" in await one.read_all()
        async with client(node) as page:
            headers = [("Accept", "text/event-stream")]
            response = await page.request(f"{address}%7Ba%7D/2", headers=headers)
            assert response.status_code == 200
            assert "retry: " in await page.read_all()
        for welcome in ("%7Ba%7D/1", "/u/%7Ba%7D", "news", "*"):
            async with client(node) as other:
                assert (await other.request(f"{address}{welcome}")).status_code == 200
