"""`noti demo` with real processes, on ports of its own."""

import atexit
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from noti.cli import exit_status
from noti.cli.demo import HOST, NATS_PORT, Ports
from noti.cli.demo_tls import DemoTls
from noti.cli.http import get_json
from noti.errors import Unavailable
from noti.swim.core.keyring import KeyRing
from noti.swim.core.messages import Ping
from noti.swim.core.packets import encode
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.key_file import keys_of
from tests import promises
from tests.interop.processes import children_of, is_running

STOP_S_MAX = 10


def _claimed() -> tuple[int, socket.socket]:
    """Return a shift of the demo's ports that no other process of these tests has at the time, and
    what keeps it: a port of its own just below them."""
    for shift in range(12_000, 24_000, 1_000):
        claim = socket.socket()
        try:
            claim.bind((HOST, Ports.of(1, shift).rpc - 1))
        except OSError:
            claim.close()
        else:
            return shift, claim
    raise AssertionError("no ports are left for a demo")


SHIFT, CLAIM = _claimed()
atexit.register(CLAIM.close)
PORTS = [NATS_PORT + SHIFT] + [
    port
    for number in (1, 2, 3)
    for port in (
        Ports.of(number, SHIFT).http,
        Ports.of(number, SHIFT).rpc,
        Ports.of(number, SHIFT).ops,
    )
]

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@contextmanager
def demo(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "noti", "demo", "--dir", str(directory), *arguments]
    with subprocess.Popen(
        [*command, f"--shift-ports={SHIFT}", "--rate=20"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # its children die with it


def line_with(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read on until a line matches; pytest's time limit is the deadline."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(pattern, line):
            return found
    pytest.fail(f"the demo ended without saying {pattern!r}:\n{''.join(seen)}")


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def descendants_of(pid: int) -> set[int]:
    children = children_of(pid)
    return children.union(*map(descendants_of, children))


def test_the_printed_token_publishes(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        token = line_with(process, r"TOKEN=(\S+)")[1]
        hub = line_with(process, r"-d data=hello (http://\S+)")[1]
        line_with(process, r"node\d leads")
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(hub, data={"topic": "news", "data": "hello"}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert httpx.post(hub, data={"topic": "news"}).status_code == 401


@promises.DEMO_ENDS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_killed_node_comes_back_and_a_signal_ends_everything(
    tmp_path: Path, number: signal.Signals
) -> None:
    with demo(tmp_path) as process:
        pid = int(line_with(process, r"node2 .*kill -9 (\d+)")[1])
        line_with(process, r"node\d leads")
        assert all(is_listening(port) for port in PORTS)
        processes = descendants_of(process.pid)
        assert pid in processes
        assert children_of(pid), "a node has a child that writes its log"
        subprocess.run(["kill", "-9", str(pid)], check=True)
        line_with(process, r"node2 died \(SIGKILL\); it comes back")
        if number == signal.SIGINT:  # the other one comes while the node is away
            line_with(process, r"node2 is back")
        processes |= descendants_of(process.pid)
        process.send_signal(number)
        line_with(process, "all stopped")
        assert process.wait(STOP_S_MAX) == 0
        assert not any(map(is_running, processes))
        assert not any(is_listening(port) for port in PORTS)
    log = (tmp_path / "publisher.log").read_text()
    assert "published" in log.splitlines()[-1]


def gossip_answer(port: int, keys: KeyRing | None) -> bytes | None:
    """Return what a node answers to a ping, sealed or plain; None when it says nothing."""
    sealing = Sealing(keys, Encryption.REQUIRED, "", os.urandom)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as prober:
        prober.settimeout(1.0)
        ping = encode(Ping(7, "node1", None, ""))
        prober.sendto(sealing.seal_packet(ping), (HOST, port))
        try:
            return sealing.open_packet(prober.recv(4096))
        except TimeoutError:
            return None


def test_with_tls_nothing_is_plain(tmp_path: Path) -> None:
    with demo(tmp_path, "--tls=on") as process:
        curl = line_with(process, r"curl -N --cacert (\S+) (https://\S+)/category")
        line_with(process, r"node\d leads")
        assert get_json(curl[2], "/readiness", tls_ca=Path(curl[1]))
        ports = Ports.of(1, SHIFT)
        with pytest.raises(Unavailable):
            get_json(f"http://{HOST}:{ports.http}", "/readiness")
        tls = DemoTls(tmp_path / "certs")
        context = ssl.create_default_context(cafile=tls.ca)
        context.load_cert_chain(tmp_path / "certs/node2.pem", tmp_path / "certs/node2.key")
        with (
            socket.create_connection((HOST, ports.rpc)) as connection,
            context.wrap_socket(connection, server_hostname="node1") as encrypted,
        ):
            assert encrypted.version() == "TLSv1.3"
        keys = KeyRing(keys_of(tls.gossip_keys.read_bytes(), "keys"))
        assert gossip_answer(ports.gossip, keys) is not None
        assert gossip_answer(ports.gossip, None) is None
        with socket.create_connection((HOST, NATS_PORT + SHIFT)) as connection:
            greeting = connection.recv(4096).decode()
            assert '"tls_required":true' in greeting
            assert '"tls_verify":true' in greeting
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S_MAX) == 0
    assert not (tmp_path / "certs/ca.key").exists()
    logs = "".join((tmp_path / f"node{number}.log").read_text() for number in (1, 2, 3))
    rejected = set(re.findall(r"rejected: .* reason=(\w+)", logs))
    assert "plain" in rejected, "the one that this test made"
    assert rejected <= {"plain", "other"}, "on a slow machine a probe may hang up too early"


def test_a_taken_port_is_reported_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = Ports.of(2, SHIFT).gossip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, port))
        assert exit_status(["demo", f"--dir={tmp_path}", f"--shift-ports={SHIFT}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"noti: error: port {port} (gossip of node2) is in use; find its owner")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
