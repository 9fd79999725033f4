"""The address of operators: one connection that fails is one connection, and no more."""

import pytest
import trio

from noti.http import ops_server
from noti.http.app import App
from noti.http.hypercorn_glue import Connection
from noti.http.ops import add_metrics
from noti.listening import open_listeners
from tests import promises
from tests.http.stage import LIMIT_S, client


@promises.CONNECTION_FAILS_ALONE
async def test_error_of_the_library_ends_one_connection_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise AttributeError("'NoneType' object has no attribute 'write'")

    app = App("test")
    add_metrics(app)
    listeners = await open_listeners(("127.0.0.1", 0), "--ops-addr")
    address = listeners[0].getsockname()
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(ops_server.serve_operators, listeners, app)
            with monkeypatch.context() as broken:
                broken.setattr(Connection, "receive_some", fail)
                async with await trio.open_tcp_stream(*address) as stream:
                    assert await stream.receive_some() == b""
            async with client(address) as prometheus:
                assert (await prometheus.request("/metrics")).status_code == 200
            nursery.cancel_scope.cancel()
    assert listeners[0].fileno() == -1, "it is closed"
