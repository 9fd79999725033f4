"""Bytes that no honest caller sends, on the RPC port of a real node: refused, counted, no harm."""

import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.errors import ClusterMismatch, PeerUnavailable
from noti.history.levels import SUPPORTED
from noti.protobuf import length_field
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    AppendRequest,
    Entry,
    EntryKind,
    PeerMessage,
    SnapshotChunk,
    VoteRequest,
)
from noti.raft.core.records import RECORD_BYTES_MAX, new_entry
from noti.raft.ports import Hello
from noti.rpc.admission import RAFT_METHOD
from noti.rpc.codec import FRAME_BYTES_MAX, encode_hello, encode_messages
from noti.rpc.frame_connections import PREFACE as RAFT_PREFACE
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.publish_service import REQUEST_BYTES_MAX
from noti.rpc.raft_streams import PeerMessageStream
from tests import promises
from tests.http.stage import client
from tests.interop.processes import NodeProcess, running_node
from tests.rpc.test_grpc import framed, raft_request

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HTTP2 = 'noti_rpc_rejected_total{kind="http2"}'
HELLO = 'noti_rpc_rejected_total{kind="hello"}'
CLUSTER = 'noti_rpc_rejected_total{kind="cluster"}'
REQUEST = 'noti_rpc_rejected_total{kind="request"}'
INVALID = 'noti_raft_messages_rejected_total{reason="invalid"}'
WRONG_SENDER = 'noti_raft_messages_rejected_total{reason="wrong_sender"}'
VIOLATION = "noti_raft_protocol_violations_total"

STATE = ("node", "role", "term", "level", "commit", "applied", "members", "store")
"""What none of this may change."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
ON_A_CONNECTION = {
    "noise": (random.Random(1).randbytes(4096), HTTP2),
    "HTTP/1.1": (b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", HTTP2),
    "a frame longer than allowed": (
        PREFACE + b"\x11\0\0\0\0\0\0\0\1" + bytes(0x110000),
        HTTP2,
    ),
    "data of no request": (PREFACE + b"\0\0\4\0\0\0\0\0\1abcd", HTTP2),
    "headers that do not decompress": (PREFACE + b"\0\0\4\1\4\0\0\0\1\xff\xff\xff\xff", HTTP2),
    "a frame that is cut off": (PREFACE + b"\0\0\x64\1\4\0\0\0\1abc", None),
    "a node without a hello": (RAFT_PREFACE + framed(b"\xff" * 20), HELLO),
    "a node of another cluster": (
        RAFT_PREFACE + framed(encode_hello(Hello("elsewhere", "z", "zed"))),
        CLUSTER,
    ),
    "a node that says too much": (
        RAFT_PREFACE + struct.pack(">?I", False, FRAME_BYTES_MAX + 1),
        HELLO,
    ),
    "a node that says half of what it is": (RAFT_PREFACE[:-1], None),
    "nothing": (b"", None),
}
AS_A_HELLO = {
    "garbage": (framed(b"\xff" * 20), HELLO),
    "no hello": (framed(b""), HELLO),
    "longer than allowed": (struct.pack(">?I", False, FRAME_BYTES_MAX + 1), HELLO),
    "compressed": (struct.pack(">?I", True, 3) + b"abc", HELLO),
    "cut off": (framed(encode_hello(Hello("c", "z", "zed")))[:-1], HELLO),
    "of another cluster": (framed(encode_hello(Hello("elsewhere", "z", "zed"))), CLUSTER),
    "of another version": (framed(length_field(1, msgpack.packb([99, "c", "z", "z"]))), CLUSTER),
}


TO_PUBLISH = {
    "garbage": framed(b"\xff" * 20),
    "text that is not UTF-8": framed(length_field(1, length_field(2, b"\xff"))),
    "longer than allowed": struct.pack(">?I", False, REQUEST_BYTES_MAX + 1),
    "cut off": framed(b"\x0a\x00")[:-1],
}


def frame_of(*messages: PeerMessage) -> bytes:
    [frame] = encode_messages(messages)
    return frame


def request_with(entry: bytes) -> bytes:
    """Return a frame with an append request whose one entry is these bytes."""
    return length_field(1, msgpack.packb([[3, "z", 9, 1, 1, 0, [entry], 0, 0]]))


def on_a_stream(term: int, commit: int) -> dict[str, tuple[bytes, str]]:
    """Return what a member could say to a leader of this term, which knows what is committed."""
    entry = new_entry(commit + 1, term, EntryKind.COMMAND, b"command")
    wrong_crc = bytearray(entry.record)
    wrong_crc[-1] ^= 1
    too_large = struct.pack("<II", RECORD_BYTES_MAX, 0) + bytes(RECORD_BYTES_MAX)
    members = encode_configuration(Configuration("c", ("z",)))
    far = term + 5

    def snapshot(index: int, configuration: bytes = members) -> bytes:
        return frame_of(SnapshotChunk("z", far, index, term, configuration, 0, b"no state", 8))

    def vote(term: int, last_index: int = 0) -> bytes:
        return frame_of(VoteRequest("z", term, last_index, 0, pre=False, transfer=True))

    def append(term: int, previous: int, commit: int, *entries: Entry) -> bytes:
        return frame_of(AppendRequest("z", term, previous, 1, commit, entries))

    return {
        "garbage": (b"\xff\xff\xff", INVALID),
        "a batch that is cut off": (vote(term)[:-1], INVALID),
        "a second hello": (encode_hello(Hello("c", "z", "zed")), INVALID),
        "an entry with a wrong checksum": (request_with(bytes(wrong_crc)), INVALID),
        "an entry over the limit": (request_with(too_large), INVALID),
        "an entry of a later term than its leader": (append(1, commit, 0, entry), INVALID),
        "a term near 2**64": (vote(2**64 - 1), INVALID),
        "an index near 2**64": (vote(far, 2**64 - 1), INVALID),
        "a previous index near 2**64": (append(far, 2**64 - 1, 0), INVALID),
        "a commit index near 2**64": (append(far, commit, 2**64 - 1), INVALID),
        "a snapshot with a configuration that is none": (snapshot(99, b"none"), INVALID),
        "a term near 2**63": (vote(2**63 - 1), VIOLATION),
        "a snapshot that does not decode": (snapshot(commit + 50), VIOLATION),
        "a snapshot at an index near 2**63": (snapshot(2**63 - 1), VIOLATION),
        "a second leader": (append(term, commit, commit), VIOLATION),
        "a false name": (frame_of(VoteRequest("y", far, 0, 0, False, True)), WRONG_SENDER),
    }


@asynccontextmanager
async def grpc_network() -> AsyncIterator[GrpcNetwork]:
    asyncio_loop = AsyncioLoop()
    async with trio.open_nursery() as nursery:
        await nursery.start(asyncio_loop.run)
        yield GrpcNetwork(asyncio_loop)
        nursery.cancel_scope.cancel()


async def counts(node: NodeProcess) -> dict[str, float]:
    async with client(node.ops) as http:
        await http.request("/metrics")
        lines = (await http.read_all()).splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


async def state(node: NodeProcess) -> dict[str, Any]:
    status = await node.status()
    assert status is not None
    return {key: status[key] for key in STATE}


async def until_counted(node: NodeProcess, counter: str, before: float) -> None:
    with trio.fail_after(10):
        while (await counts(node)).get(counter, 0.0) <= before:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def until_closed(stream: PeerMessageStream) -> None:
    with trio.fail_after(10):
        with suppress(PeerUnavailable):
            await stream.receive(lambda _: True)


def say(raw: socket.socket, data: bytes) -> None:
    """Send bytes and no more, and read until the node has had enough."""
    raw.settimeout(10)
    try:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65536):
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass


def say_in_a_call(address: Address, data: bytes, path: str) -> None:
    raw, connection = raft_request(address, path)
    with raw:
        connection.send_data(1, data, end_stream=True)
        say(raw, connection.data_to_send())


@promises.PEER_NONSENSE_SURVIVED
async def test_bytes_that_are_no_rpc_are_refused_and_counted_and_change_nothing(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node:
        known = await state(node)
        for what, (data, counter) in ON_A_CONNECTION.items():
            before = (await counts(node)).get(counter or "", 0.0)
            with socket.create_connection(node.rpc) as raw:
                await trio.to_thread.run_sync(say, raw, data)
            if counter:
                await until_counted(node, counter, before)
            assert await state(node) == known, what
        for what, (data, counter) in AS_A_HELLO.items():
            before = (await counts(node)).get(counter or "", 0.0)
            await trio.to_thread.run_sync(say_in_a_call, node.rpc, data, RAFT_METHOD)
            if counter:
                await until_counted(node, counter, before)
            assert await state(node) == known, what
        for method in ("Publish", "PublishStream"):
            for what, data in TO_PUBLISH.items():
                before = (await counts(node)).get(REQUEST, 0.0)
                path = f"/noti.v1.Publisher/{method}"
                await trio.to_thread.run_sync(say_in_a_call, node.rpc, data, path)
                await until_counted(node, REQUEST, before)
                assert await state(node) == known, what
        assert "Traceback" not in node.log_text()
        told = [line for line in node.log_text().splitlines() if "rejected what" in line]
        kinds = ("http2", "hello", "cluster", "request")
        assert [sum(f'"{kind}"' in line for line in told) for kind in kinds] == [1, 1, 1, 1]


@promises.PEER_NONSENSE_SURVIVED
async def test_messages_that_no_member_sends_are_refused_and_counted_and_change_nothing(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node, grpc_network() as network:
        with trio.fail_after(10):
            while (await state(node))["level"] < SUPPORTED:  # noqa: ASYNC110
                await trio.sleep(0.01)
        known = await state(node)
        hello = Hello(known["node"]["cluster_id"], "z", "zed", supports=SUPPORTED)
        for what, (frame, counter) in on_a_stream(known["term"], known["commit"]).items():
            before = (await counts(node)).get(counter, 0.0)
            stream = await network.open_raft_stream(node.rpc, hello)
            assert isinstance(stream, PeerMessageStream)
            await stream._write(frame)
            await until_counted(node, counter, before)
            if counter == INVALID:
                await until_closed(stream)
            await stream.aclose()
            assert await state(node) == known, what
        assert "Traceback" not in node.log_text()
        with pytest.raises(ClusterMismatch, match="has this node's id"):
            await network.open_raft_stream(node.rpc, Hello("", known["node"]["node_id"], "copy"))
        async with client(node.ops) as http:
            answer = await http.request("/status?consistent=1")
            assert answer.status_code == 200, "it can still commit"
