"""Probes of the operator: one connection that fails is one connection."""

import pytest
import trio

from noti.kubernetes import ops
from tests import promises
from tests.interop.processes import get_json, stable_port


@promises.CONNECTION_FAILS_ALONE
async def test_error_of_the_library_ends_one_connection_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise AttributeError("'NoneType' object has no attribute 'write'")

    address = ("127.0.0.1", stable_port())
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(ops.serve_ops, address, lambda: True, lambda: True)
            with monkeypatch.context() as broken:
                broken.setattr(ops, "TCPServer", lambda *_: fail())
                stream = await trio.open_tcp_stream(*address)
                assert await stream.receive_some() == b""
                await stream.aclose()
            assert await get_json(address, "/readiness") == {"ready": True, "holds_lease": True}
            nursery.cancel_scope.cancel()
