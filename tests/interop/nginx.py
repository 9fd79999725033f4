"""A real nginx on loopback, from Debian's package, without installing it."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from noti.address import Address
from tests.interop.processes import HOST
from tests.ports import free_port

CACHE = Path(__file__).parents[2] / ".cache" / "nginx"
PACKAGES = ("nginx", "libnginx-mod-nchan")
"""The second one is for the benchmark beside nchan."""

CONFIG = """
{user}
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 100; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    gzip on;
    server {{
        listen {host}:{port};
        {settings}
        location / {{ proxy_pass http://{upstream_host}:{upstream_port}; }}
    }}
}}
"""


def nginx_root() -> Path | None:
    """Return the directory below which nginx is, unpacking it when it is nowhere."""
    if shutil.which("nginx"):
        return Path("/")
    if not (CACHE / "usr/sbin/nginx").exists() and shutil.which("apt-get"):
        CACHE.mkdir(parents=True, exist_ok=True)
        # Unpacked, not installed: the package would start a server on all interfaces.
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=CACHE, capture_output=True)
        for package in CACHE.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=CACHE, check=True)
    return CACHE if (CACHE / "usr/sbin/nginx").exists() else None


@asynccontextmanager
async def nginx(directory: Path, upstream: Address, settings: str) -> AsyncIterator[Address]:
    """Run nginx in front of `upstream` with its defaults and `settings`; it is gone afterwards."""
    root = await trio.to_thread.run_sync(nginx_root)
    assert root is not None, "this test needs nginx: apt-get install nginx-light"
    port = free_port()
    await trio.Path(directory).mkdir()
    config = trio.Path(directory) / "nginx.conf"
    await config.write_text(
        CONFIG.format(
            user="user root;" if os.geteuid() == 0 else "",
            directory=directory,
            host=HOST,
            port=port,
            settings=settings,
            upstream_host=upstream[0],
            upstream_port=upstream[1],
        )
    )
    program = str(root / "usr/sbin/nginx")
    with (directory / "nginx.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [program, "-p", str(directory), "-c", str(config), "-e", "stderr"],
            stdout=log,
            stderr=log,
        )
    try:
        with trio.fail_after(30):
            while not await _answers(port):
                assert process.poll() is None, (directory / "nginx.log").read_text()
                await trio.sleep(0.02)
        yield HOST, port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _answers(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream(HOST, port)
    except OSError:
        return False
    await stream.aclose()
    return True
