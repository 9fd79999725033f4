"""`noti publish` and `noti mock-publisher` against a real NATS server."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest

from noti.cli import exit_status
from noti.cli.demo_tls import DemoTls
from noti.rpc.generated.category.v1 import CategoryMessage
from tests.certificates.authority import authority
from tests.ports import free_port

NATS_SERVER = Path(sys.executable).parent / "nats-server"
DEADLINE_S = 30

pytestmark = pytest.mark.interop


@contextmanager
def nats_server(port: int, store: Path, *arguments: str) -> Iterator[None]:
    command = [str(NATS_SERVER), "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(store)]
    command += arguments
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail("nats-server does not listen")


def published(port: int) -> list[tuple[str, CategoryMessage]]:
    """Return what the stream `jobs` holds, in order."""

    async def read() -> list[tuple[str, CategoryMessage]]:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        jetstream = client.jetstream()
        info = await jetstream.stream_info("jobs")
        messages = []
        for number in range(1, info.state.last_seq + 1):
            message = await jetstream.get_msg("jobs", number)
            assert message.subject is not None
            payload = CategoryMessage.parse(message.data or b"")
            messages.append((message.subject, payload))
        await client.close()
        return messages

    return asyncio.run(read())


def test_one_event_is_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    with nats_server(port, tmp_path):
        wait_for(port)
        arguments = ["--user-id", "7", "--from", "books", "--to", "films"]
        url = f"nats://127.0.0.1:{port}"
        assert exit_status(["publish", "--nats-url", url, *arguments]) == 0
        [(subject, message)] = published(port)
    assert subject == "jobs.noti.books"
    assert (message.user_id, message.category_from, message.category_to) == (7, "books", "films")
    assert message.created_at is not None
    assert "published to jobs.noti.books: jobs has it as number 1\n" in capsys.readouterr().out


def test_a_category_never_breaks_the_subject(tmp_path: Path) -> None:
    port = free_port()
    with nats_server(port, tmp_path):
        wait_for(port)
        arguments = ["--user-id", "7", "--from", "a.b >*", "--to", "films"]
        assert exit_status(["publish", f"--nats-url=nats://127.0.0.1:{port}", *arguments]) == 0
        [(subject, message)] = published(port)
    assert subject == "jobs.noti.a-b---"
    assert message.category_from == "a.b >*"


def test_publishing_without_nats_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"nats://user:hush@127.0.0.1:{free_port()}"
    arguments = ["--user-id", "7", "--from", "books", "--to", "films"]
    assert exit_status(["publish", "--nats-url", url, *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("noti: error: NATS at nats://***@127.0.0.1:")
    assert said.count("\n") == 1


@pytest.fixture
def tls(tmp_path: Path) -> DemoTls:
    """The certificates of the demo."""
    made = DemoTls(tmp_path / "certs")
    made.make([])
    return made


def test_publishing_to_nats_that_wants_tls_and_a_certificate(
    tls: DemoTls,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    publish = ["publish", f"--nats-url=nats://127.0.0.1:{port}", "--user-id=7", "--from=a"]
    publish += ["--to=b"]
    other = tmp_path / "other.pem"
    other.write_bytes(authority().pem)
    with nats_server(port, tmp_path, *tls.nats_arguments()):
        wait_for(port)
        assert exit_status([*publish, *tls.publisher_arguments()]) == 0
        assert "jobs has it as number 1\n" in capsys.readouterr().out
        assert caplog.messages == [], "a connection that ended well is nothing to warn of"
        assert exit_status([*publish, f"--nats-tls-ca={other}"]) == 1
        assert "shows a certificate of a CA that is not in our CA file" in capsys.readouterr().err
        # Why is lost when the server's rejection comes while the client writes (TLS 1.3).
        assert exit_status([*publish, f"--nats-tls-ca={tls.ca}"]) == 1
        assert capsys.readouterr().err.count("\n") == 1
        assert exit_status([*publish, f"--nats-tls-ca={tmp_path}"]) == 2
        assert "is a directory" in capsys.readouterr().err


def test_nothing_is_published_in_plain_text_once_tls_is_asked_for(
    tls: DemoTls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with nats_server(port, tmp_path):
        wait_for(port)
        arguments = ["--user-id=7", "--from=a", "--to=b", *tls.publisher_arguments()]
        assert exit_status(["publish", f"--nats-url=nats://127.0.0.1:{port}", *arguments]) == 1
        assert "the server offers no TLS" in capsys.readouterr().err


def test_the_mock_publisher_waits_for_nats_and_counts_without_a_gap(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "noti", "mock-publisher", "--rate=1000", "--count=20"]
    with subprocess.Popen(
        [*command, "--start=5", f"--nats-url=nats://127.0.0.1:{port}"],
        stderr=subprocess.PIPE,
        text=True,
    ) as publisher:
        try:
            assert publisher.stderr is not None
            assert "cannot be used" in publisher.stderr.readline()
            with nats_server(port, tmp_path):
                assert publisher.wait(DEADLINE_S) == 0
                messages = [message for _, message in published(port)]
        finally:
            publisher.kill()
        assert publisher.stderr.read().splitlines()[-1].startswith("published 20 events to jobs")
    assert [message.user_id for message in messages] == list(range(5, 25))


def test_the_mock_publisher_survives_a_restart_of_nats_without_gap_or_duplicate(
    tmp_path: Path,
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "noti", "mock-publisher", "--rate=200", "--count=200"]
    with nats_server(port, tmp_path):
        wait_for(port)
        publisher = subprocess.Popen(
            [*command, f"--nats-url=nats://127.0.0.1:{port}"], stderr=subprocess.PIPE, text=True
        )
        assert publisher.stderr is not None
        assert "published 1 to jobs" in publisher.stderr.readline()
    with publisher, nats_server(port, tmp_path):
        try:
            assert publisher.wait(DEADLINE_S) == 0
        finally:
            publisher.kill()
        numbers = [message.user_id for _, message in published(port)]
    assert numbers == list(range(1, 201))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_mock_publisher_ends_cleanly_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    port = free_port()
    with nats_server(port, tmp_path):
        wait_for(port)
        with subprocess.Popen(
            [sys.executable, "-m", "noti", "mock-publisher"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTI_NATS_URL": f"nats://127.0.0.1:{port}"},
        ) as publisher:
            try:
                assert publisher.stderr is not None
                assert "published 1 to jobs" in publisher.stderr.readline()
                publisher.send_signal(number)
                assert publisher.wait(DEADLINE_S) == 0
            finally:
                publisher.kill()
            assert "events to jobs" in publisher.stderr.read()
