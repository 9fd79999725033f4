"""The servers that `just bench hub` compares, each on a processor of its own.

nginx with nchan comes from Debian's packages, installed or just unpacked.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import nats

from tests.bench.clusters import HOST, NotiNode, Processes, listens, start_nats, until
from tests.bench.load.processes import family
from tests.bench.load.publishers import GrpcPublisher, HttpPublisher, JetStreamPublisher, Publisher
from tests.interop.nginx import nginx_root
from tests.interop.serf_agent import free_port

NCHAN_INSTALL = "apt-get install nginx-light libnginx-mod-nchan"
MODULE = "usr/lib/nginx/modules/ngx_nchan_module.so"

BODIES = Path("/var/lib/nginx")
"""Where Debian's nginx keeps request bodies. nchan insists on it, whatever is configured."""

HISTORY = 1000
SUBJECT = "jobs.noti.bench"
CONNECTIONS_MAX = 18_000

NGINX_CONFIG = """
load_module {module};
{user}
daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    nchan_shared_memory_size 256m;
    server {{
        listen {host}:{port} backlog=4096;
        location = /publish {{
            nchan_publisher;
            nchan_channel_id bench;
            nchan_message_buffer_length {history};
            nchan_message_timeout 10m;
        }}
        location = /subscribe {{
            nchan_subscriber eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


class Server(Protocol):
    """A server under test."""

    name: str
    url: str
    """Of the stream."""

    @property
    def pids(self) -> Sequence[int]:
        """Its processes."""

    def publisher(self) -> Publisher:
        """Connect one that publishes events one by one."""


class Nchan:
    """nginx with nchan, as one process, which is what one worker is."""

    name = "nchan"

    def __init__(self, processes: Processes, directory: Path, root: Path, cpu: int) -> None:
        port = free_port()
        config = directory / "nginx.conf"
        config.write_text(
            NGINX_CONFIG.format(
                module=root / MODULE,
                user="user root;" if os.geteuid() == 0 else "",
                directory=directory,
                connections=CONNECTIONS_MAX,
                host=HOST,
                port=port,
                history=HISTORY,
            )
        )
        program = str(root / "usr/sbin/nginx")
        command = [program, "-p", str(directory), "-c", str(config), "-e", "stderr"]
        self._process = processes.start("nginx", command, cpu)
        until("nginx listens", lambda: listens(port))
        self.url = f"http://{HOST}:{port}/subscribe"
        self._publish_url = f"http://{HOST}:{port}/publish"

    @property
    def pids(self) -> Sequence[int]:
        """The worker, which is the only process: a master that is killed would leave it behind."""
        return [self._process.pid]

    def publisher(self) -> Publisher:
        return HttpPublisher(self._publish_url)


class Noti:
    """One node that is a cluster of its own, and the NATS server that it reads from."""

    name = "noti"

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        cpu: int,
        settings: Sequence[str] = (),
        *,
        with_operations: bool = False,
    ) -> None:
        """`with_operations` makes the usual address the operators' own; then `settings` name
        another one for browsers.
        """
        self.nats_url = start_nats(processes, directory)
        asyncio.run(_make_stream(self.nats_url))
        self.node = NotiNode(1)
        command = [
            *(sys.executable, "-m", "noti", "run"),
            f"--name={self.node.name}",
            f"--data-dir={directory / self.node.name}",
            f"--{'ops' if with_operations else 'http'}-addr={HOST}:{self.node.http}",
            f"--gossip-addr={HOST}:{self.node.gossip}",
            f"--rpc-addr={HOST}:{self.node.rpc}",
            "--gossip-profile=local",
            f"--history-size={HISTORY}",
            f"--nats-url={self.nats_url}",
            *settings,
        ]
        self._process = processes.start(self.node.name, command, cpu)
        until("the node reads from NATS", self._reads)
        self.url = f"{self.node.url}/.well-known/mercure?topic={SUBJECT}"

    def _reads(self) -> bool:
        status = self.node.status()
        return status is not None and status["source"]["state"] == "reading"

    @property
    def pids(self) -> Sequence[int]:
        """The node, and the process that writes its log."""
        return family(self._process.pid)

    def publisher(self) -> Publisher:
        return GrpcPublisher(HOST, self.node.rpc, SUBJECT)

    def batch_publisher(self) -> Publisher:
        """Connect to NATS, from where a node takes events in batches."""
        return JetStreamPublisher(self.nats_url, SUBJECT)


async def _make_stream(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    await client.jetstream().add_stream(
        name="jobs", subjects=["jobs.noti.>"], retention="workqueue"
    )
    await client.close()


def nchan_root() -> Path | None:
    """Return the directory below which nginx and nchan are; None when they cannot be had."""
    root = nginx_root()
    if root is None or not (root / MODULE).exists():
        return None
    if not BODIES.exists() and os.geteuid() == 0:
        BODIES.mkdir()
    return root if BODIES.exists() else None
