"""What the parsers use of h11, h2 and Hypercorn, without a promise of theirs, is still there.

That it does what it is used for is shown by `test_ambiguous_heads.py`, `test_http2_streams.py` and
others. This module imports nothing of the parsers: it is to say what is gone when they cannot be
imported.
"""

import inspect
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import h11
from hypercorn.config import Config


def gone(module: str, name: str) -> str:
    package = module.partition(".")[0]
    return f"{package} {version(package)} has no {module}.{name}: see noti/http/strict_parsers.py"


def protocol(name: str) -> Any:
    """One of Hypercorn's protocols, connected to nothing."""
    from hypercorn.protocol import h2, h11
    from hypercorn.trio.worker_context import WorkerContext

    found: Callable[..., Any] = getattr(h2 if name == "H2Protocol" else h11, name)
    nothing: Any = None
    context = WorkerContext(None)
    return found(nothing, Config(), context, nothing, nothing, False, None, None, nothing)


def test_parsers_are_where_stricter_ones_are_put() -> None:
    assert hasattr(h11.Connection(h11.SERVER), "_receive_buffer"), gone("h11", "_receive_buffer")
    assert isinstance(protocol("H11Protocol").connection, h11.Connection)
    decoder = protocol("H2Protocol").connection.decoder
    assert hasattr(decoder, "max_header_list_size"), "hpack has no Decoder.max_header_list_size"
    frames = protocol("H2Protocol").connection.incoming_buffer
    assert hasattr(frames, "_headers_buffer"), gone("h2", "FrameBuffer._headers_buffer")
    assert hasattr(h11._receivebuffer.ReceiveBuffer, "maybe_extract_lines"), gone("h11", "buffer")


def test_http_2_begins_its_requests_and_hears_of_windows_where_streams_are_put() -> None:
    from hypercorn.protocol.h2 import H2Protocol

    parts = {
        "_create_stream": ["self", "request"],
        "_window_updated": ["self", "stream_id"],
        "_close_stream": ["self", "stream_id"],
        "_flush": ["self"],
    }
    for name, parameters in parts.items():
        found = getattr(H2Protocol, name, None)
        assert found is not None, gone("hypercorn", f"H2Protocol.{name}")
        assert list(inspect.signature(found).parameters) == parameters
