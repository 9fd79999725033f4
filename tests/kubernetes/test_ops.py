"""What probes of the operator are told."""

import pytest
import trio

from noti.errors import AddressInUse
from noti.kubernetes import ops
from tests.http.stage import LIMIT_S, client
from tests.ports import free_port


async def test_an_operator_lives_always_and_is_ready_while_the_api_answers() -> None:
    address, in_touch = ("127.0.0.1", free_port()), True
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(ops.serve_ops, address, lambda: False, lambda: in_touch)
            for ready in (True, False):
                in_touch = ready
                for path, expected in (("/liveness", True), ("/readiness", ready)):
                    async with client(address) as probe:
                        status = (await probe.request(path)).status_code
                        assert status == (200 if expected else 503)
            async with client(address) as prometheus:
                assert (await prometheus.request("/metrics")).status_code == 200
                await prometheus.read_until("noti_")
            with pytest.raises(AddressInUse, match="--ops-addr"):
                await ops.serve_ops(address, lambda: True, lambda: True)
            nursery.cancel_scope.cancel()
