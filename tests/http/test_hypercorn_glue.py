"""What the glue uses of Hypercorn and its parsers, without a promise of theirs, is still there.

That it does what it is used for is shown by the tests of this room. This module imports nothing of
the glue: it is to say what is gone when the glue cannot be imported.
"""

import importlib
import inspect
from importlib.metadata import version
from typing import Any

import pytest

NAMES = {
    "hypercorn.logging": ["Logger.access", "Logger.exception"],
    "hypercorn.protocol": ["H11Protocol", "H2Protocol", "ProtocolWrapper.handle"],
    "hypercorn.protocol.h2": ["H2Protocol._handle_events", "H2Protocol._flush"],
    "hypercorn.trio.tcp_server": ["TCPServer.run", "TCPServer.protocol_send"],
    "hypercorn.trio.worker_context": ["WorkerContext", "EventWrapper.set"],
    "hypercorn.typing": ["ConnectionState", "LifespanState"],
}


def gone(module: str, name: str) -> str:
    package = module.partition(".")[0]
    return f"{package} {version(package)} has no {module}.{name}: see noti/http/hypercorn_glue.py"


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in NAMES.items() for name in names]
)
def test_names_are_where_they_were(module: str, name: str) -> None:
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        pytest.fail(gone(module, name))


def test_a_protocol_wrapper_looks_its_protocols_up_when_it_needs_them() -> None:
    from hypercorn.protocol import ProtocolWrapper

    used = ProtocolWrapper.__init__.__code__.co_names
    assert {"H11Protocol", "H2Protocol"} <= set(used), "hypercorn makes its protocols elsewhere"


def test_a_server_is_given_what_one_connection_needs() -> None:
    from hypercorn.trio.tcp_server import TCPServer

    parameters = list(inspect.signature(TCPServer).parameters)
    assert parameters == ["app", "config", "context", "state", "stream"]
    asked = TCPServer.run.__code__.co_names + TCPServer._close.__code__.co_names
    assert {"do_handshake", "selected_alpn_protocol", "transport_stream", "send_eof"} <= set(asked)
