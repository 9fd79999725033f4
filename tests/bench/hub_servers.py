"""The servers that `just bench hub` compares, each on a processor of its own.

nginx with nchan comes from Debian's packages, installed or just unpacked.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import nats

from tests.bench.clusters import HOST, NotiNode, Processes, listens, start_nats, until
from tests.bench.load.processes import family
from tests.bench.load.publishers import GrpcPublisher, HttpPublisher, JetStreamPublisher, Publisher
from tests.certificates.authority import Wanted, authority, issue
from tests.interop.nginx import nginx_root
from tests.ports import free_port

CENTRIFUGO_INSTALL = "go install github.com/centrifugal/centrifugo/v6@latest"
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
        {tls}
        location = /publish {{
            nchan_publisher;
            nchan_channel_id bench;
            nchan_message_buffer_length {history};
            nchan_message_timeout 10m;
        }}
        location = /subscribe {{
            nchan_subscriber eventsource websocket;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


NGINX_TLS = """listen {host}:{port} ssl backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;"""

TRANSPORTS: Final = ("sse", "ws", "sse-tls", "ws-tls")
"""How clients come: event streams or WebSockets, and over TLS."""


def scheme_of(transport: str) -> str:
    """Return the scheme of a URL that load clients take for a transport."""
    return {"sse": "http", "ws": "ws", "sse-tls": "https", "ws-tls": "wss"}[transport]


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server over TLS shows, and who vouches for it."""

    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def made(cls, directory: Path) -> "Certificate":
        """Write one for the loopback address, with an elliptic curve's key."""
        root = authority()
        ca = directory / "ca.pem"
        ca.write_bytes(root.pem)
        return cls(*issue(Wanted(ips=(HOST,)), root).write(directory, "server"), ca)


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

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        root: Path,
        cpu: int | None,
        transport: str = "sse",
        tls: Certificate | None = None,
    ) -> None:
        port = free_port()
        clients_port = port if tls is None else free_port()
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
                tls=""
                if tls is None
                else NGINX_TLS.format(
                    host=HOST, port=clients_port, certificate=tls.certificate, key=tls.key
                ),
            )
        )
        program = str(root / "usr/sbin/nginx")
        command = [program, "-p", str(directory), "-c", str(config), "-e", "stderr"]
        self._process = processes.start("nginx", command, cpu)
        until("nginx listens", lambda: listens(port))
        self.url = f"{scheme_of(transport)}://{HOST}:{clients_port}/subscribe"
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
        cpu: int | None,
        settings: Sequence[str] = (),
        *,
        transport: str = "sse",
        tls: Certificate | None = None,
        web_workers: int = 0,
    ) -> None:
        if tls is not None:
            settings = [
                *settings,
                f"--http-tls-cert={tls.certificate}",
                f"--http-tls-key={tls.key}",
            ]
        self.nats_url = start_nats(processes, directory)
        asyncio.run(_make_stream(self.nats_url))
        self.node = NotiNode(1)
        command = [
            *(sys.executable, "-m", "noti", "run"),
            f"--name={self.node.name}",
            f"--data-dir={directory / self.node.name}",
            f"--http-addr={HOST}:{self.node.http}",
            f"--gossip-addr={HOST}:{self.node.gossip}",
            f"--rpc-addr={HOST}:{self.node.rpc}",
            f"--ops-addr={HOST}:{self.node.ops}",
            "--gossip-profile=local",
            f"--history-size={HISTORY}",
            f"--nats-url={self.nats_url}",
            f"--web-workers={web_workers}",
            *settings,
        ]
        self.process = processes.start(self.node.name, command, cpu)
        self._web_workers = web_workers
        until("the node reads from NATS, and its web workers serve", self._reads)
        self.url = (
            f"{scheme_of(transport)}://{HOST}:{self.node.http}/.well-known/mercure?topic={SUBJECT}"
        )

    def _reads(self) -> bool:
        status = self.node.status()
        if status is None or status["source"]["state"] != "reading":
            return False
        serving = [one for one in status["web_workers"] if one["state"] == "serving"]
        return len(serving) == self._web_workers

    @property
    def pids(self) -> Sequence[int]:
        """The node, and the process that writes its log."""
        return family(self.process.pid)

    def publisher(self) -> Publisher:
        return GrpcPublisher(HOST, self.node.rpc, SUBJECT)

    def batch_publisher(self) -> Publisher:
        """Connect to NATS, from where a node takes events in batches."""
        return JetStreamPublisher(self.nats_url, SUBJECT)


class Centrifugo:
    """Centrifugo with its memory engine, whose clients only listen (its unidirectional ways)."""

    name = "centrifugo"

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        binary: str,
        cpu: int | None,
        transport: str = "sse",
        tls: Certificate | None = None,
    ) -> None:
        self._port = free_port()
        api_port = free_port()
        server: dict[str, object] = {
            "address": HOST,
            "port": str(self._port),
            "internal_address": HOST,
            "internal_port": str(api_port),
        }
        if tls is not None:
            server["tls"] = {
                "enabled": True,
                "cert_pem": str(tls.certificate),
                "key_pem": str(tls.key),
            }
            server["tls_external"] = True  # and not for whoever publishes
        settings = {
            "http_server": server,
            "http_api": {"insecure": True},
            "uni_sse": {"enabled": True},
            "uni_websocket": {"enabled": True},
            "client": {"insecure": True, "allow_anonymous_connect_without_token": True},
            "log": {"level": "error"},
        }
        config = directory / "centrifugo.json"
        config.write_text(json.dumps(settings))
        self.process = processes.start("centrifugo", [binary, "-c", str(config)], cpu)
        until("centrifugo listens", lambda: listens(self._port) and listens(api_port))
        way = "uni_websocket" if transport.startswith("ws") else "uni_sse"
        connect = quote(json.dumps({"subs": {"bench": {}}}))
        self.url = (
            f"{scheme_of(transport)}://{HOST}:{self._port}/connection/{way}?cf_connect={connect}"
        )
        self._publish_url = f"http://{HOST}:{api_port}/api/publish"

    @property
    def pids(self) -> Sequence[int]:
        """Its only process."""
        return [self.process.pid]

    def publisher(self) -> Publisher:
        return HttpPublisher(self._publish_url, around=(b'{"channel":"bench","data":', b"}"))


def centrifugo_binary() -> str | None:
    """Return where Centrifugo is; None when it cannot be had."""
    return shutil.which("centrifugo") or shutil.which(str(Path.home() / "go/bin/centrifugo"))


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
