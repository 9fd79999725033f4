"""nginx in the role of ingress-nginx: the rendered Ingress, with its annotations' settings."""

import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from noti.address import Address
from tests.interop.rehearsal.chart import Manifest

PREFIX = "nginx.ingress.kubernetes.io/"

SETTINGS: dict[str, Callable[[str], str]] = {
    "proxy-buffering": lambda value: f"proxy_buffering {value};",
    "proxy-http-version": lambda value: f"proxy_http_version {value};",
    "proxy-connect-timeout": lambda value: f"proxy_connect_timeout {value}s;",
    "proxy-read-timeout": lambda value: f"proxy_read_timeout {value}s;",
    "proxy-send-timeout": lambda value: f"proxy_send_timeout {value}s;",
    "proxy-next-upstream": lambda value: f"proxy_next_upstream {value};",
    "proxy-next-upstream-tries": lambda value: f"proxy_next_upstream_tries {value};",
    "proxy-request-buffering": lambda value: f"proxy_request_buffering {value};",
}
"""Annotation -> nginx, as ingress-nginx's template has it."""

CONFIG = """
user root;
worker_processes 1;
worker_shutdown_timeout 240s;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream pods {{
        {servers}
        keepalive 320;
    }}
    server {{
        listen {host}:{port} default_server;
        server_name {names};
        location {path} {{
            proxy_set_header Host $host;
            proxy_set_header Connection "";
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            {settings}
            {target}
        }}
    }}
}}
"""
"""Everything that does not come from an annotation is ingress-nginx's default."""

NEXT_UPSTREAM = {"proxy-next-upstream": "error timeout", "proxy-next-upstream-tries": "3"}


class Proxy:
    """One nginx that always knows the pods behind the Ingress's service."""

    def __init__(self, program: Path, directory: Path, address: Address, ingress: Manifest) -> None:
        self.address = address
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: list[str] = []
        self._scheme = ""
        self._shown: tuple[Address, ...] | None = None
        self.read(ingress)
        [rule] = ingress["spec"]["rules"]
        [path] = rule["http"]["paths"]
        self._names = rule.get("host", "_")
        self._path = path["path"]
        self.service: str = path["backend"]["service"]["name"]
        self.service_port: int = path["backend"]["service"]["port"]["number"]

    def read(self, ingress: Manifest) -> None:
        """Take the settings of the Ingress, which may have changed."""
        annotations = {
            name.removeprefix(PREFIX): value
            for name, value in ingress["metadata"].get("annotations", {}).items()
            if name.startswith(PREFIX)
        }
        self._scheme = annotations.pop("backend-protocol", "HTTP").lower()
        unknown = set(annotations) - set(SETTINGS)
        assert not unknown, f"annotations that the rehearsal does not know: {unknown}"
        given = {**NEXT_UPSTREAM, **annotations}
        self._settings = [SETTINGS[name](value) for name, value in given.items()]
        self._shown = None

    def send_to(self, pods: Sequence[Address]) -> None:
        """Use these pods from now on; streams that there are go on where they are."""
        shown = tuple(sorted(pods))
        if shown == self._shown:
            return
        self._shown = shown
        (self._directory / "nginx.conf").write_text(self._config(shown))
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        self.send_to(())
        self._process = self._spawn()
        try:
            with trio.fail_after(20):
                while not await self._answers():
                    assert self._process.poll() is None, self.last_lines()
                    await trio.sleep(0.02)
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._process.terminate()
            self._process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        config = str(self._directory / "nginx.conf")
        command = [str(self._program), "-p", str(self._directory), "-c", config, "-e", "stderr"]
        with (self._directory / "nginx.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "-g", "daemon off;"], stdout=log, stderr=log, start_new_session=True
            )

    def last_lines(self) -> str:
        """Return what it complained about."""
        return (self._directory / "nginx.log").read_text(errors="replace")[-2000:]

    def _config(self, pods: Sequence[Address]) -> str:
        servers = [f"server {host}:{port} max_fails=0;" for host, port in pods]
        return CONFIG.format(
            directory=self._directory,
            servers=" ".join(servers) or "server 127.0.0.1:1 down;",
            host=self.address[0],
            port=self.address[1],
            names=self._names,
            path=self._path,
            settings=" ".join(self._settings),
            target=f"proxy_pass {self._scheme}://pods;" if pods else "return 503;",
        )

    async def _answers(self) -> bool:
        try:
            stream = await trio.open_tcp_stream(*self.address)
        except OSError:
            return False
        await stream.aclose()
        return True
