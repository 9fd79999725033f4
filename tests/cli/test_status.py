"""`noti status` and `noti members` draw what a node answers, and say so when it does not."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from noti.cli import exit_status
from tests.certificates.authority import Wanted, authority, issue
from tests.certificates.bad import peer_context

REPORT = {
    "node": {"name": "node1", "node_id": "ab12"},
    "ready": True,
    "role": "leader",
    "leader": None,
    "members": [
        {"name": "node1", "state": "alive", "http": "127.0.0.1:8402"},
        {"name": "[red]node2[/red]", "state": "dead", "role": "follower"},
    ],
    "source": {"error": None, "urls": ["a", "b"]},
}


@contextmanager
def node(
    body: bytes, status: int = 200, tls: ssl.SSLContext | None = None, media_type: str = ""
) -> Iterator[str]:
    """Answer every request with `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if media_type:
                self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_status_shows_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    with node(json.dumps(REPORT).encode()) as url:
        assert exit_status(["status", "--http", url]) == 0
    shown = lines(capsys.readouterr().out)
    for line in (
        "node name node1",
        "node id ab12",
        "ready yes",
        "role leader",
        "leader -",
        "source urls a, b",
        "node1 alive 127.0.0.1:8402 -",
    ):
        assert line in shown


def test_members_shows_one_line_a_member(capsys: pytest.CaptureFixture[str]) -> None:
    with node(json.dumps(REPORT).encode()) as url:
        assert exit_status(["members", "--http", url]) == 0
    assert lines(capsys.readouterr().out) == [
        "members",
        "name state http role",
        "node1 alive 127.0.0.1:8402 -",
        "[red]node2[/red] dead - follower",
    ]


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"<html>", 200, "does not answer with JSON"),
        (b"[]", 200, "is not a report"),
        (b'{"role": "leader"}', 200, "reports no members"),
        (b"", 404, "answers 404 Not Found"),
    ],
)
def test_a_strange_answer_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], body: bytes, status: int, problem: str
) -> None:
    with node(body, status) as url:
        assert exit_status(["members", "--http", url]) == 1
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:1", "no answer from http://127.0.0.1:1/status"),
        ("127.0.0.1:8402", "write http://127.0.0.1:8403"),
        ("file:///etc/passwd", "is not the URL of a node"),
        ("http://127.0.0.1:x", "is not the URL of a node"),
    ],
)
def test_an_unreachable_node_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], url: str, problem: str
) -> None:
    assert exit_status(["status", "--http", url]) == 1
    said = capsys.readouterr().err
    assert problem in said
    assert said.count("\n") == 1


def test_status_over_https_wants_a_certificate_that_is_right(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ca, other = authority(), tmp_path / "other.pem"
    own = tmp_path / "ca.pem"
    own.write_bytes(ca.pem)
    other.write_bytes(authority("other").pem)
    right = peer_context(issue(Wanted(ips=("127.0.0.1",)), ca), tmp_path, server=True)
    with node(json.dumps(REPORT).encode(), tls=right) as url:
        assert exit_status(["status", "--http", url, "--tls-ca", str(own)]) == 0
        assert "node name node1" in lines(capsys.readouterr().out)
        for trusted in ((), ("--tls-ca", str(other))):
            assert exit_status(["status", "--http", url, *trusted]) == 1
            said = capsys.readouterr().err
            assert "a CA that is not in our CA file (see --tls-ca)" in said
        assert exit_status(["status", "--http", url, "--tls-ca", str(tmp_path)]) == 2
        assert "is a directory; name the PEM file in it" in capsys.readouterr().err
    elsewhere = peer_context(issue(Wanted(ips=("127.0.0.2",)), ca), tmp_path, server=True)
    with node(json.dumps(REPORT).encode(), tls=elsewhere) as url:
        assert exit_status(["members", "--http", url, "--tls-ca", str(own)]) == 1
        assert "IP address mismatch" in capsys.readouterr().err


def test_streams_of_the_source_are_a_table_when_there_are_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    streams = [{"name": "jobs", "state": "reading"}, {"name": "orders", "state": "waiting"}]
    for shown, is_table in ((streams, True), (streams[:1], False)):
        report = {**REPORT, "source": {"state": "reading", "streams": shown}}
        with node(json.dumps(report).encode()) as url:
            assert exit_status(["status", "--http", url]) == 0
        drawn = lines(capsys.readouterr().out)
        assert "source state reading" in drawn
        assert ("source streams" in drawn) is is_table
        assert ("orders waiting" in drawn) is is_table
