"""The opening handshake of WebSockets (RFC 6455, 4.2), and who may read through one."""

from collections.abc import Callable

import pytest

from noti.http.answers import Answer
from noti.http.config import HttpConfig
from noti.http.websocket_handshake import Handshake, answer_to_handshake, wants_websocket
from noti.streams.framing import WEBSOCKET_EVENT_STREAM, WEBSOCKET_OBJECTS, Framing

HUB_URL = "https://hub.example/.well-known/mercure"
RIGHT = {
    "upgrade": "websocket",
    "connection": "keep-alive, Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
TOKEN = "aaa.bbb.ccc"


def headers(**given: str) -> Callable[[str], str]:
    """Return what looks up the headers of a right handshake, some of them replaced."""
    all_of_them = RIGHT | {name.replace("_", "-"): value for name, value in given.items()}
    return lambda name: all_of_them.get(name, "")


def answered(config: HttpConfig | None = None, **given: str) -> Handshake | Answer:
    return answer_to_handshake(headers(**given), HUB_URL, config or HttpConfig())


def opened(config: HttpConfig | None = None, **given: str) -> Handshake:
    handshake = answered(config, **given)
    assert isinstance(handshake, Handshake), handshake
    return handshake


def refused(config: HttpConfig | None = None, **given: str) -> Answer:
    answer = answered(config, **given)
    assert isinstance(answer, Answer)
    return answer


def test_answer_proves_that_the_key_was_read() -> None:
    """As in the example of RFC 6455, 1.3."""
    assert opened().accept == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    head = opened().response([("Last-Event-ID", "id-1")])
    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\n"
        b"connection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"last-event-id: id-1\r\n\r\n"
    )


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
def test_upgrade_is_read_as_a_list_of_names_in_any_case(upgrade: str) -> None:
    assert wants_websocket(headers(upgrade=upgrade))


@pytest.mark.parametrize("upgrade", ["", "h2c", "websockets", "web socket"])
def test_other_upgrades_are_none_of_ours(upgrade: str) -> None:
    assert not wants_websocket(headers(upgrade=upgrade))


@pytest.mark.parametrize("connection", ["upgrade", "UPGRADE", "close,upgrade", "a , Upgrade , b"])
def test_connection_is_read_as_a_list(connection: str) -> None:
    assert isinstance(answered(connection=connection), Handshake)


@pytest.mark.parametrize("connection", ["", "keep-alive", "upgraded"])
def test_upgrade_counts_only_if_it_is_named_in_connection(connection: str) -> None:
    assert refused(connection=connection).status == 400


@pytest.mark.parametrize("version", ["", "8", "14", "13, 8"])
def test_other_versions_are_told_the_right_one(version: str) -> None:
    answer = refused(sec_websocket_version=version)
    assert answer.status == 426
    assert ("Sec-WebSocket-Version", "13") in answer.headers
    assert ("Upgrade", "websocket") in answer.headers


@pytest.mark.parametrize(
    "key",
    [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZWU=",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25j!Q==",
    ],
)
def test_key_must_be_sixteen_bytes_in_base64(key: str) -> None:
    assert refused(sec_websocket_key=key).status == 400


@pytest.mark.parametrize(
    ("offered", "chosen", "framing"),
    [
        ("", None, WEBSOCKET_OBJECTS),
        ("noti", "noti", WEBSOCKET_OBJECTS),
        ("sse", "sse", WEBSOCKET_EVENT_STREAM),
        ("sse, noti", "sse", WEBSOCKET_EVENT_STREAM),
        ("chat, noti", "noti", WEBSOCKET_OBJECTS),
        (f"authorization.bearer.{TOKEN},sse", "sse", WEBSOCKET_EVENT_STREAM),
    ],
)
def test_first_subprotocol_that_is_spoken_is_chosen(
    offered: str, chosen: str | None, framing: Framing
) -> None:
    handshake = opened(sec_websocket_protocol=offered)
    assert handshake.subprotocol == chosen
    assert handshake.framing is framing
    assert (b"sec-websocket-protocol" in handshake.response([])) == (chosen is not None)


@pytest.mark.parametrize("offered", ["chat", f"authorization.bearer.{TOKEN}"])
def test_client_without_a_subprotocol_that_is_spoken_is_told_which_are(offered: str) -> None:
    """A browser that offers some and is given none breaks the connection, and says nothing."""
    answer = refused(sec_websocket_protocol=offered)
    assert answer.status == 400
    assert b'"noti" or "sse"' in answer.body
    assert TOKEN.encode() not in answer.body


def test_token_among_the_subprotocols_is_read_as_a_header_and_never_answered() -> None:
    handshake = opened(sec_websocket_protocol=f"noti, authorization.bearer.{TOKEN}")
    assert handshake.header("authorization") == f"Bearer {TOKEN}"
    assert TOKEN.encode() not in handshake.response([])
    assert TOKEN not in repr(handshake)


def test_header_with_a_token_is_read_as_usual() -> None:
    assert opened(authorization="Bearer x").header("authorization") == "Bearer x"


@pytest.mark.parametrize(
    "given",
    [
        {"sec_websocket_protocol": "noti, authorization.bearer.a, authorization.bearer.b"},
        {"sec_websocket_protocol": "noti, authorization.bearer.a", "authorization": "Bearer b"},
    ],
)
def test_choice_between_two_tokens_is_not_made(given: dict[str, str]) -> None:
    assert refused(None, **given).status == 400


NAMED = HttpConfig(cors_origins=("https://app.example", "https://*.apps.example"))
OWN = ["https://hub.example", "http://hub.example", "https://hub.example:443"]


@pytest.mark.parametrize("origin", [*OWN, "https://app.example", "https://one.apps.example"])
def test_cookie_counts_for_pages_of_the_hub_and_of_named_origins(origin: str) -> None:
    assert opened(NAMED, origin=origin, cookie="a=b").header("cookie") == "a=b"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "https://hub.example.evil.example", "https://hub.example:8"],
)
def test_page_of_another_origin_may_not_read(origin: str) -> None:
    """Nobody asks CORS before a WebSocket is opened: cross-site WebSocket hijacking."""
    for given in ({}, {"cookie": "a=b"}, {"sec_websocket_protocol": "noti"}):
        assert refused(NAMED, origin=origin, **given).status == 403


def test_star_lets_all_pages_read_without_cookies() -> None:
    config = HttpConfig(cors_origins=("*",))
    handshake = opened(config, origin="https://evil.example", cookie="a=b")
    assert handshake.header("cookie") == ""
    assert opened(config, origin=OWN[0], cookie="a=b").header("cookie") == "a=b"


def test_cookie_from_nobody_knows_where_does_not_count() -> None:
    assert opened(cookie="a=b").header("cookie") == ""
