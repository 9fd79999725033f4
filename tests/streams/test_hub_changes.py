"""A hub goes by other settings while it runs."""

import trio
import trio.testing

from noti.streams.config import HubConfig
from tests.http.stage import hub, notification, running
from tests.streams.test_hub import Reader
from tests.streams.test_hub import _readers_are_closed as _readers_are_closed


async def test_other_settings_count_for_open_streams_and_for_those_to_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(hub(heartbeat_s=1000.0, clients_max=1, lifetime_s=0.0)) as there:
        reader = Reader(there)
        await trio.sleep(100)
        there.change(HubConfig(heartbeat_s=10.0, clients_max=2, lifetime_s=50.0))
        await trio.sleep(100)
        assert there.limits.reached("") is None
        aged = Reader(there)
        await trio.sleep(56)
        assert aged.ended or "retry: " in await aged.read_all()
        assert there.clients == 1, "one that is open ends when it was to end"
        there.publish([notification(1)])
        assert (await reader.read_until("id-1")).count(":\n") >= 10
