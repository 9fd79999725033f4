"""`noti publish --subject` at a real NATS server."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from noti.cli import exit_status
from tests.cli.test_publish import nats_server, wait_for
from tests.ports import free_port

pytestmark = pytest.mark.interop


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A server with a stream `orders`."""
    port = free_port()
    with nats_server(port, tmp_path):
        wait_for(port)

        async def make() -> None:
            client = await nats.connect(f"nats://127.0.0.1:{port}")
            await client.jetstream().add_stream(name="orders", subjects=["orders.>"])
            await client.close()

        asyncio.run(make())
        yield port


def stored(port: int) -> tuple[str, list[bytes], bytes]:
    """Return subject, header lines and payload of the first message."""

    async def ask() -> bytes:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        answer = await client.request("$JS.API.STREAM.MSG.GET.orders", b'{"seq": 1}')
        await client.close()
        return answer.data

    message = json.loads(asyncio.run(ask()))["message"]
    lines = base64.b64decode(message.get("hdrs", "")).split(b"\r\n")[1:]
    return message["subject"], [one for one in lines if one], base64.b64decode(message["data"])


def publish(port: int, *arguments: str) -> int:
    return exit_status(["publish", f"--nats-url=nats://127.0.0.1:{port}", *arguments])


def test_data_goes_to_the_subject_as_it_is(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(port, "--subject=orders.new", "--data=hello") == 0
    assert stored(port) == ("orders.new", [], b"hello")
    assert capsys.readouterr().out == "published to orders.new: orders has it as number 1\n"


def test_what_is_said_beside_the_data_becomes_headers(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    event = ["--topic=a", "--topic=b", "--id=order-7", "--type=new", "--private", "--retry-ms=9"]
    assert publish(port, "--subject=orders.new", "--data=hello", *event) == 0
    assert stored(port)[1] == [
        b"Noti-Topic: a",
        b"Noti-Topic: b",
        b"Nats-Msg-Id: order-7",
        b"Noti-Type: new",
        b"Noti-Private: true",
        b"Noti-Retry: 9",
    ]
    assert publish(port, "--subject=orders.new", "--data=hello", *event) == 0
    assert "number 1, which had it before by its id" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        ("elsewhere", "no stream takes elsewhere"),
        ("orders.a b", "'orders.a b' is no subject to publish to"),
        ("$JS.API.STREAM.PURGE.orders", "belongs to NATS itself"),
    ],
)
def test_subject_that_no_stream_takes_is_told(
    port: int, subject: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(port, f"--subject={subject}", "--data=hello") == 1
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["--data=x", "--rpc=h:1"], ["--data=x", "--user-id=7"], ["--data=x", "--url=u"]],
)
def test_subject_goes_with_data_and_to_jetstream(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["publish", "--subject=orders.new", *arguments]) == 2
    assert "--subject goes with --data, and to JetStream alone" in capsys.readouterr().err
