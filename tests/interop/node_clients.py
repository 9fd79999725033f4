"""Readers in Node: the npm packages `eventsource`, `undici` and `@microsoft/fetch-event-source`.

They come from the registry, once.
"""

import json
import shutil
import subprocess
from pathlib import Path

import trio

from tests.interop.witness import Witness

SOURCE = Path(__file__).parent / "eventsource"
CACHE = Path(__file__).parents[2] / ".cache" / "eventsource"
PACKAGE = ("package.json", "package-lock.json")


def node_program(name: str = "client.mjs") -> Path:
    """Return a client's script, with its packages beside it, as the lock file names them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = [(SOURCE / name).read_bytes() for name in PACKAGE]
    stamp = CACHE / "installed"
    if not stamp.exists() or stamp.read_bytes() != b"".join(wanted):
        for file, content in zip(PACKAGE, wanted, strict=True):
            (CACHE / file).write_bytes(content)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=CACHE, check=True, capture_output=True)
        stamp.write_bytes(b"".join(wanted))
    script = CACHE / name
    shutil.copy(SOURCE / name, script)
    return script


async def follow_in_node(package: str, url: str, witness: Witness) -> None:
    """Run an EventSource until cancelled, and have it seen by `witness`."""
    script = await trio.to_thread.run_sync(node_program)
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            ["node", str(script), package, url],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # undici warns that its EventSource is experimental
        )
        try:
            assert process.stdout is not None
            pending = b""
            async for data in process.stdout:
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    witness.see(json.loads(line))
            raise AssertionError(f"{package} gave up: {witness.problem()}")
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()
