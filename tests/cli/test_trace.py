"""`noti trace` asks all nodes, and shows what each says of an event."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from noti.cli import exit_status

EVENT = {
    "seq": 9,
    "topics": ["news", "a\x1b[31m"],
    "private": True,
    "created_ms": 1500,
    "taken_ms": 1600,
    "log_index": 7,
    "applied_ms": 1700,
    "source_seq": None,
    "streams": 23,
    "streams_complete": True,
}


@contextmanager
def node(name: str, known: dict[str, dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield a node's address, and the list of members that it shows."""
    members: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/status":
                answer: Any = {"node": {"name": name}, "members": members}
            else:
                event_id = parse_qs(parts.query)["id"][0]
                nothing = {"node": name, "events": [], "refused": [], "last_seq": 9}
                answer = nothing | known.get(event_id, {})
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", members
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def member(name: str, ops: str, state: str = "alive", role: str = "follower") -> dict[str, str]:
    return {"name": name, "state": state, "role": role, "ops": ops}


def test_all_nodes_that_the_first_one_knows_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    behind = EVENT | {"streams": 4, "streams_complete": False, "applied_ms": None}
    with (
        node("one", {"id/1 ü": {"events": [EVENT]}}) as (one, members),
        node("two", {"id/1 ü": {"events": [behind]}}) as (two, _),
    ):
        members += [
            member("one", "127.0.0.1:1"),
            member("two", two),
            member("three", ""),
            member("agent", "", role="none"),
            member("dead", "127.0.0.1:1", state="dead"),
        ]
        assert exit_status(["trace", "--url", f"http://{one}", "id/1 ü"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("id/1 ü: number 9, news a")
    assert "\x1b" not in lines[0]
    assert lines[0].endswith(", private")
    assert lines[1] == "made 1970-01-01T00:00:01.500Z, taken 1970-01-01T00:00:01.600Z"
    rows = [line.split() for line in lines[4:6]]
    assert rows[0] == ["one", "7", "-", "1970-01-01T00:00:01.700Z", "23"]
    assert rows[1] == ["two", "7", "-", "-", ">=", "4"]
    assert lines[-1] == (
        "three: not asked, as its --ops-addr is for its own machine; name it by --url"
    )


def test_refusal_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = {"at_ms": 1500, "reason": "a topic is empty", "times": 2}
    with node("one", {"bad": {"refused": [refusal]}}) as (one, _):
        assert exit_status(["trace", "--url", f"http://{one}", "bad"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one refused it 2 times, last 1970-01-01T00:00:01.500Z: a topic is empty",
        "one does not have it in history (its newest number is 9)",
    ]


def test_node_without_an_answer_is_named_and_the_others_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with node("one", {"a": {"events": [EVENT]}}) as (one, _):
        urls = ["--url", f"http://{one}", "--url", "http://127.0.0.1:1"]
        assert exit_status(["trace", *urls, "--json", "a"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert exit_status(["trace", *urls, "unknown"]) == 1
    assert [answer["node"] for answer in told["nodes"]] == ["one", "http://127.0.0.1:1"]
    assert "no answer" in told["nodes"][1]["error"]
    assert "one does not have it in history" in capsys.readouterr().out


@pytest.mark.parametrize("event_id", ["", "x" * 257, "x" * 100_000])
def test_id_that_no_event_has_is_told_in_short_before_anybody_is_asked(
    event_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["trace", "--url", "http://127.0.0.1:1", event_id]) == 2
    said = capsys.readouterr().err
    assert f"ID has 1 to 256 characters, not {len(event_id):,}" in said
    assert len(said) < 100
