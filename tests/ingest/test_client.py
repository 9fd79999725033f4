"""A login stays here unless the connection is as it was asked to be."""

from unittest.mock import Mock
from urllib.parse import urlsplit

import nats.errors
import pytest
from nats.aio.client import Srv

from noti.ingest.client import NatsClient


def greeted(url: str, **options: object) -> NatsClient:
    """A client over a WebSocket, whose server has just greeted."""
    client = NatsClient()
    client._current_server = Srv(urlsplit(url))  # type: ignore[arg-type]
    client._transport = Mock()
    client._server_info = {"headers": True}
    client.options = {
        "verbose": False,
        "pedantic": False,
        "name": None,
        "no_echo": False,
        **options,
    }
    return client


def test_plain_websocket_gets_no_login_where_tls_was_asked_for() -> None:
    with pytest.raises(nats.errors.Error, match="offers no TLS, and nothing was sent to it"):
        greeted("ws://127.0.0.1:8080", tls=object())._connect_command()


@pytest.mark.parametrize("options", [{}, {"tls": object()}])
def test_encrypted_websocket_is_connected_to(options: dict[str, object]) -> None:
    assert greeted("wss://127.0.0.1:8080", **options)._connect_command().startswith(b"CONNECT ")
