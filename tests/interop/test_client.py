"""`noti.client` in an application, on Trio and on asyncio, while a node dies."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests import promises
from tests.authorization.tokens import token_v0
from tests.interop.application import TOPIC
from tests.interop.processes import written
from tests.interop.test_mercure_clients import LIMIT_S, site

pytestmark = [pytest.mark.interop, pytest.mark.slow]

COUNT = 300


@promises.APPLICATION_GOES_ON
@promises.RETRY_SHOWN_ONCE
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_an_application_goes_on_at_other_nodes_without_gap_or_duplicate(
    tmp_path: Path, backend: str
) -> None:
    token = token_v0(publish=[TOPIC], subscribe=[TOPIC])
    async with site(tmp_path) as there:
        urls = [f"http://{written(node.http)}" for node in there.nodes]
        command = [sys.executable, "-m", "tests.interop.application", backend, str(COUNT), token]
        process = await trio.lowlevel.open_process([*command, *urls], stdout=subprocess.PIPE)
        assert process.stdout is not None
        read = b""
        killed = False
        try:
            with trio.fail_after(2 * LIMIT_S):
                async for data in process.stdout:
                    read += data
                    # Its reader began at the first node; that one dies in the middle.
                    if not killed and len(read.splitlines()) > COUNT // 3:
                        await there.nodes[0].kill()
                        killed = True
                assert await process.wait() == 0
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    assert read.decode().splitlines() == [str(number) for number in range(1, COUNT + 1)]
