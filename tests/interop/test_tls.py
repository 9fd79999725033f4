"""Real nodes with TLS: bad peers call one; a cluster has all its certificates replaced."""

import itertools
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from noti.address import Address
from noti.history.levels import SUPPORTED
from noti.raft.ports import Hello
from noti.rpc.admission import RAFT_METHOD
from noti.rpc.codec import decode_hello, encode_hello
from tests import promises
from tests.certificates.authority import Issued, authority, node
from tests.certificates.bad import BAD_CALLERS, CLAIMED_NAME, BadPeer, good_context
from tests.http.stage import client
from tests.interop.cluster import Cluster, running_cluster, until
from tests.interop.processes import NodeProcess, run_to_end, why_it_ended, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]

RENEWED_WITHIN_S = 40.0
"""Ten seconds are promised, for a machine that has time; nothing is measured here."""
CALL_S_MAX = 5.0


class Files:
    """The certificate files of some nodes, each node with its own copies."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.authority = authority("first CA")
        self._directories = {name: directory / f"tls-{name}" for name in names}
        for directory_of_one in self._directories.values():
            directory_of_one.mkdir()
        self.trust(self.authority)
        self.renew()

    def trust(self, *authorities: Issued) -> None:
        """Put these CAs into every node's file."""
        bundle = b"".join(one.pem for one in authorities)
        for directory in self._directories.values():
            fresh = directory / "ca.new"
            fresh.write_bytes(bundle)
            fresh.replace(directory / "ca.pem")

    def renew(self) -> None:
        """Give each node a new certificate and key."""
        for name, directory in self._directories.items():
            node(name, self.authority).write(directory, "node")

    def certificate(self, name: str) -> bytes:
        """Return what is in a node's certificate file, DER."""
        return ssl.PEM_cert_to_DER_cert((self._directories[name] / "node.pem").read_text())

    def flags(self, name: str) -> Sequence[str]:
        """Return the flags that name a node's files."""
        directory = self._directories[name]
        files = (("--tls-cert", "node.pem"), ("--tls-key", "node.key"), ("--tls-ca", "ca.pem"))
        return [part for flag, file in files for part in (flag, str(directory / file))]

    def https_flags(self, name: str) -> Sequence[str]:
        """Return the flags with which a node shows the same certificate to browsers."""
        return [flag.replace("--tls", "--http-tls") for flag in self.flags(name)[:4]]


def called(
    address: Address, context: ssl.SSLContext, source: str = "127.0.0.1"
) -> tuple[bytes, str]:
    """Call as `CLAIMED_NAME`; return the certificate that was shown, and the answer to the hello.

    Raises `ssl.SSLError` when TLS refuses, and returns the text of a gRPC refusal.
    """
    raw = socket.create_connection(address, CALL_S_MAX, source_address=(source, 0))
    with raw, context.wrap_socket(raw) as secured:
        shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        headers = {":method": "POST", ":scheme": "https", ":path": RAFT_METHOD, ":authority": "x"}
        headers |= {"te": "trailers", "content-type": "application/grpc"}
        connection.send_headers(1, list(headers.items()))
        says = Hello("", f"id-of-{CLAIMED_NAME}", CLAIMED_NAME, supports=SUPPORTED)
        hello = encode_hello(says)
        connection.send_data(1, struct.pack(">?I", False, len(hello)) + hello)
        secured.sendall(connection.data_to_send())
        while received := secured.recv(65_536):
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.DataReceived) and event.data:
                    return shown, f"welcome from {decode_hello(event.data[5:]).name}"
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    answer = {str(name): str(value) for name, value in event.headers or ()}
                    if "grpc-message" in answer:
                        return shown, answer["grpc-message"]
    raise ConnectionResetError("no answer to the hello")


@dataclass
class Scene:
    """A running node with TLS."""

    process: NodeProcess
    files: Files

    async def counted(self, reason: str) -> float:
        async with client(self.process.ops) as http:
            await http.request("/metrics")
            metrics = await http.read_all()
        name = f'noti_tls_rejected_total{{at="rpc",reason="{reason}"}} '
        values = [line.removeprefix(name) for line in metrics.splitlines() if line.startswith(name)]
        return float(values[0]) if values else 0

    def lines(self, source: str) -> list[str]:
        return [line for line in self.process.log_text().splitlines() if f": {source}:" in line]

    async def is_unharmed(self, directory: Path) -> None:
        good = good_context(self.files.authority, directory)
        _, answer = await trio.to_thread.run_sync(called, self.process.rpc, good)
        assert answer == "welcome from node1"
        status = await self.process.status()
        assert status is not None
        assert (status["role"], status["ready"]) == ("leader", True)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("tls")
    files = Files(directory, "node1")
    process = NodeProcess("node1", directory)
    process.start(*files.flags("node1"))
    yield Scene(process, files)
    trio.run(process.destroy)
    print(process.last_lines())


@pytest.fixture
async def scene(started: Scene) -> Scene:
    await started.process.until_up()
    return started


SOURCES = itertools.count(2)


@promises.ONLY_CERTIFIED_PEERS
@pytest.mark.parametrize("peer", BAD_CALLERS, ids=str)
async def test_a_bad_caller_is_refused_counted_and_logged_in_one_line(
    scene: Scene, peer: BadPeer, tmp_path: Path
) -> None:
    source = f"127.0.1.{next(SOURCES)}"  # a host of its own: one line for a host and a reason
    before = await scene.counted(peer.reason)
    context = peer.context(scene.files.authority, tmp_path)
    answers = []
    for _ in range(2):
        try:
            _, answer = await trio.to_thread.run_sync(called, scene.process.rpc, context, source)
        except (ssl.SSLError, ConnectionError) as error:
            answer = str(error)
        answers.append(answer)
    assert not any(answer.startswith("welcome") for answer in answers)
    assert all(answer.startswith("this caller") for answer in answers) != peer.handshake, answers
    assert await scene.counted(peer.reason) == before + 2
    [line] = scene.lines(source)
    assert f'"reason": "{peer.reason}"' in line
    await scene.is_unharmed(tmp_path)


ALERTS = {
    "protocol": "alert protocol version",
    "missing": "alert certificate required",
    "issuer": "alert unknown ca",
    "self_signed": "alert unknown ca",
    "expired": "alert certificate expired",
    "not_yet_valid": "alert bad certificate",
    "usage": "alert unsupported certificate",
}
VERDICTS = {
    "issuer": "unable to get local issuer certificate",
    "self_signed": "self-signed certificate",
    "expired": "certificate has expired",
    "not_yet_valid": "certificate is not yet valid",
    "usage": "unsuitable certificate purpose",
}


@pytest.mark.openssl
@pytest.mark.parametrize("peer", [one for one in BAD_CALLERS if one.handshake], ids=str)
async def test_openssl_agrees_about_a_bad_caller(
    scene: Scene, peer: BadPeer, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(scene.files.authority.pem)
    shown = peer.make(scene.files.authority)
    arguments = ["-CAfile", str(ca)]
    if shown is not None:
        certificate, key = shown.write(tmp_path, "peer")
        arguments += ["-cert", str(certificate), "-key", str(key)]
        if shown.chain:
            arguments += ["-cert_chain", str(certificate)]
        if peer.reason in VERDICTS and not shown.chain:
            verify = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", str(ca)]
            judged = await trio.to_thread.run_sync(run_to_end, [*verify, str(certificate)])
            assert judged.returncode != 0
            assert (
                "same name" in peer.name or VERDICTS[peer.reason] in judged.stdout + judged.stderr
            )
    if peer.version_max is ssl.TLSVersion.TLSv1_2:
        arguments += ["-tls1_2"]
    text = await trio.to_thread.run_sync(s_client, scene.process.rpc, arguments)
    # A signature that does not fit is an alert of its own.
    same_name = "same name" in peer.name
    assert ("alert decrypt error" if same_name else ALERTS[peer.reason]) in text


@pytest.mark.openssl
async def test_openssl_agrees_about_a_good_caller(scene: Scene, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(scene.files.authority.pem)
    certificate, key = node(CLAIMED_NAME, scene.files.authority).write(tmp_path, "peer")
    arguments = ["-CAfile", str(ca), "-cert", str(certificate), "-key", str(key), "-alpn", "h2"]
    text = await trio.to_thread.run_sync(s_client, scene.process.rpc, arguments, 1.0)
    assert "Verify return code: 0 (ok)" in text
    assert "TLSv1.3" in text
    assert "ALPN protocol: h2" in text
    assert "alert" not in text


def s_client(address: Address, arguments: Sequence[str], listens_s: float = CALL_S_MAX) -> str:
    """Return what `openssl s_client` says until it is refused, or has listened for so long."""
    command = ["openssl", "s_client", "-connect", written(address), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(listens_s)  # Its input stays open: at its end it would hang up.
        process.kill()
        output, _ = process.communicate()
    return output.decode(errors="replace")


async def test_wrong_files_at_the_start_are_one_line_and_status_2(tmp_path: Path) -> None:
    files = Files(tmp_path, "node1", "node2")
    process = NodeProcess("node1", tmp_path)
    for flags, problem in (
        (files.flags("node2"), "node.pem is for node node2, but this node is named 'node1'"),
        (["--tls-cert", "a", "--tls-key", "b", "--tls-ca", "c"], "a cannot be read"),
        (["--nats-url", "nats://h", "--nats-token-file", str(tmp_path)], "is a directory"),
    ):
        ended = await trio.to_thread.run_sync(run_to_end, process.command(*flags))
        assert ended.returncode == 2, ended.stderr
        assert problem in why_it_ended(ended.stderr)
        assert "Traceback" not in ended.stderr


@asynccontextmanager
async def renewal(cluster: Cluster) -> AsyncIterator[None]:
    """Wait until every node uses the files that the body has changed."""

    def renewals() -> list[int]:
        return [one.log_text().count("new TLS files in use") for one in cluster.nodes]

    before = renewals()
    yield
    with trio.fail_after(RENEWED_WITHIN_S):
        await until(
            lambda: all(now > then for now, then in zip(renewals(), before, strict=True)),
            "every node uses its new files",
        )


@promises.CERTIFICATES_REPLACED_UNDER_LOAD
async def test_nothing_is_lost_while_all_certificates_are_renewed_twice_and_the_ca_is_rotated(
    tmp_path: Path,
) -> None:
    names = [f"node{number}" for number in (1, 2, 3)]
    files = Files(tmp_path, *names)

    async def restart(one: NodeProcess) -> None:
        """Make all of a node's connections anew; the others must take them."""
        await one.kill()
        one.start()
        await cluster.until_caught_up(one)

    async def everybody_shows_what_is_in_the_files() -> None:
        good = good_context(files.authority, tmp_path)
        for one in cluster.nodes:
            shown, _ = await trio.to_thread.run_sync(called, one.rpc, good)
            assert shown == files.certificate(one.name)

    async with running_cluster(tmp_path, files.flags) as cluster:
        await everybody_shows_what_is_in_the_files()
        leader = await cluster.leader()
        async with renewal(cluster):
            files.renew()
        await everybody_shows_what_is_in_the_files()
        await restart(cluster.others(leader)[0])

        first, files.authority = files.authority, authority("second CA")
        async with renewal(cluster):
            files.trust(first, files.authority)
        async with renewal(cluster):
            files.renew()
        await everybody_shows_what_is_in_the_files()
        await restart(cluster.others(await cluster.leader())[0])
        async with renewal(cluster):
            files.trust(files.authority)
        await restart(await cluster.leader())

        bad = good_context(first, tmp_path)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await trio.to_thread.run_sync(called, leader.rpc, bad)
        await cluster.finish()


@promises.TLS_IS_SWITCHED_ON_AND_OFF
async def test_nothing_is_lost_while_nodes_get_tls_one_by_one(tmp_path: Path) -> None:
    """And while they lose it: nodes of the same two steps meet then. Browsers have none yet."""
    names = [f"node{number}" for number in (1, 2, 3)]
    files = Files(tmp_path, *names)
    flags: dict[str, Sequence[str]] = dict.fromkeys(names, ())
    async with running_cluster(tmp_path, flags.__getitem__) as cluster:
        for mode in ("permissive", "required"):
            for one in cluster.nodes:
                flags[one.name] = [
                    *(*files.flags(one.name), "--tls-mode", mode),
                    *(*files.https_flags(one.name), "--http-tls-mode", "permissive"),
                ]
                await one.kill()
                cluster.start_node(one)
                await cluster.until_caught_up(one)
        assert all("until this is required" in one.log_text() for one in cluster.nodes), "a warning"
        await cluster.finish()


@promises.ONLY_CERTIFIED_PEERS
async def test_a_node_without_tls_is_kept_out_and_both_sides_log_it(tmp_path: Path) -> None:
    files = Files(tmp_path, "node1", "node2", "node3")
    async with running_cluster(tmp_path, files.flags) as cluster:
        plain = NodeProcess("plain", tmp_path)
        try:
            plain.start(*cluster.join, "--bootstrap-expect", "3")
            everybody = [plain, *cluster.nodes]
            await until(
                lambda: all(
                    "TLS" in one.log_text() and "rejected: " in one.log_text() for one in everybody
                ),
                "both sides say why they do not speak to each other",
            )
            assert not (await plain.status() or {"ready": False})["ready"]
        finally:
            print(plain.last_lines())
            await plain.destroy()
        await cluster.finish()
