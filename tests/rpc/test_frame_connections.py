"""Streams between nodes without gRPC: who is let in, what is held, and what ends them."""

import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import pytest
import trio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.certificates.context import RAFT_FRAMES, MutualContexts
from noti.errors import ClusterMismatch, MessageInvalid, PeerUnavailable
from noti.raft.core.messages import SnapshotChunk
from noti.raft.ports import Hello, MessageStream
from noti.rpc.accepting import RpcLimits
from noti.rpc.codec import FRAME_BYTES_MAX, decode_answer, encode_hello, encode_messages
from noti.rpc.connections import PeerStream
from noti.rpc.frame_connections import (
    HELLO_BYTES_MAX,
    PREFACE,
    WINDOW_BYTES,
    FrameConnection,
)
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.inbox import prefixed
from noti.rpc.raft_streams import PeerMessageStream
from noti.rpc.tls import READ_BYTES
from tests import promises
from tests.certificates.authority import client
from tests.certificates.bad import peer_context
from tests.contract.test_rpc_network import (
    ANY_PORT,
    CLIENT,
    CONFIGURATION,
    EVERY_MESSAGE,
    Handler,
    Publications,
    receive,
    receive_count,
)
from tests.rpc import test_accepting, test_tls
from tests.rpc.older_nodes import (
    called_are_older,
    callers_are_older,
    with_older_client,
    with_older_server,
)
from tests.rpc.test_grpc import serving
from tests.rpc.tls_peers import Fixed, cluster_authority, node_tls

WAIT_S = 20
HELLO = prefixed([encode_hello(CLIENT)])
WELCOME = PREFACE + prefixed([encode_hello(Handler().hello())])
BATCH = prefixed(list(encode_messages(EVERY_MESSAGE[:1])))
TOO_LONG = struct.pack(">?I", False, FRAME_BYTES_MAX + 1)


def rejected(kind: str) -> float:
    return REGISTRY.get_sample_value("noti_rpc_rejected_total", {"kind": kind}) or 0.0


async def until_rejected(kind: str, number: float) -> None:
    while rejected(kind) < number:  # noqa: ASYNC110 - nobody announces it
        await trio.sleep(0.005)


def carrier_of(stream: MessageStream) -> object:
    assert isinstance(stream, PeerMessageStream)
    return stream._carrier


def connection_of(stream: MessageStream) -> FrameConnection:
    carrier = carrier_of(stream)
    assert isinstance(carrier, FrameConnection)
    return carrier


async def still_serves(network: GrpcNetwork, address: Address) -> None:
    stream = await network.open_raft_stream(address, CLIENT)
    await stream.send(EVERY_MESSAGE[:1])
    assert list(await receive(stream)) == EVERY_MESSAGE[:1]
    await stream.aclose()


async def answered(raw: trio.SocketStream, number: int) -> bytes:
    """Return the frames with which a node answers, their prefixes and all, or what came of them."""
    data = b""
    with suppress(trio.BrokenResourceError):
        while len(data) < number and (some := await raw.receive_some()):
            data += some
    return data


async def closed(raw: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while await raw.receive_some():
            pass


# --- which protocol is spoken ---------------------------------------------------------------------


async def test_two_nodes_of_this_release_speak_without_http_2() -> None:
    handler = Handler()
    async with serving(handler) as (_, network, address):
        stream = await network.open_raft_stream(address, CLIENT)
        await stream.send(EVERY_MESSAGE[:1])
        await receive(stream)
        assert isinstance(carrier_of(stream), FrameConnection)
        assert isinstance(carrier_of(handler.streams[0]), FrameConnection)
        await stream.aclose()


OLDER = {"called": called_are_older, "calling": callers_are_older}


@promises.UPGRADED_ONE_BY_ONE
@pytest.mark.parametrize("older", ["called", "calling"])
@pytest.mark.parametrize("tls", [False, True])
async def test_older_node_is_spoken_to_over_grpc_whoever_dials(older: str, tls: bool) -> None:
    server, caller = node_tls("server"), node_tls("client")
    if older == "called":
        server = with_older_server("server")
    else:
        caller = with_older_client("client")
    async with test_tls.serving(server if tls else None) as scene:
        with OLDER[older]():
            network = GrpcNetwork(scene.asyncio_loop, caller if tls else None)
            stream = await network.open_raft_stream(scene.address, CLIENT)
            assert isinstance(carrier_of(stream), PeerStream)
            assert stream.proven == tls
            await stream.send(EVERY_MESSAGE[:1])
            assert list(await receive(stream)) == EVERY_MESSAGE[:1]
            await stream.aclose()


async def test_node_that_hangs_up_once_it_was_understood_is_not_dialed_again() -> None:
    dialed = 0

    async def hang_up(stream: trio.SocketStream) -> None:
        nonlocal dialed
        dialed += 1
        async with stream:
            await stream.send_all(PREFACE)
            await stream.send_eof()
            await closed(stream)

    async with serving(Handler()) as (_, network, _), trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, hang_up, 0)
        address = ("127.0.0.1", listeners[0].socket.getsockname()[1])
        with pytest.raises(PeerUnavailable, match="it closed the connection"):
            await network.open_raft_stream(address, CLIENT)
        assert dialed == 1
        nursery.cancel_scope.cancel()


# --- who is let in --------------------------------------------------------------------------------


async def test_rejection_is_counted_and_its_reason_reaches_the_dialer() -> None:
    async with serving(Handler()) as (_, network, address):
        before = rejected("cluster")
        with pytest.raises(ClusterMismatch, match="stranger belongs to another cluster: other"):
            await network.open_raft_stream(address, Hello("other", "id-x", "stranger"))
        assert rejected("cluster") == before + 1
        await still_serves(network, address)


async def test_rejection_is_all_that_is_said_and_then_the_connection_closes() -> None:
    async with serving(Handler()) as (_, network, address):
        async with await trio.open_tcp_stream(*address) as raw:
            hello = encode_hello(Hello("other", "id-x", "stranger"))
            await raw.send_all(PREFACE + prefixed([hello]))
            said = await answered(raw, 10_000)
        assert said.startswith(PREFACE)
        with pytest.raises(ClusterMismatch, match="belongs to another cluster"):
            decode_answer(said[len(PREFACE) + 5 :])
        await still_serves(network, address)


async def test_caller_that_hangs_up_after_its_hello_broke_off_no_handshake() -> None:
    async with serving(Handler()) as (_, network, address):
        before, of_tls = rejected("cluster"), test_tls.refused("other")
        for _ in range(10):  # the end may be noticed before the hello is judged, or after that
            caller = socket.create_connection(address)
            caller.sendall(PREFACE + prefixed([encode_hello(Hello("other", "id-x", "stranger"))]))
            caller.shutdown(socket.SHUT_WR)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(caller)) as raw:
                assert (await answered(raw, 10_000)).startswith(PREFACE)
        await still_serves(network, address)
        assert rejected("cluster") == before + 10
        assert test_tls.refused("other") == of_tls


@promises.ONLY_CERTIFIED_PEERS
async def test_client_certificate_is_not_let_in_and_told_why(tmp_path: Path) -> None:
    async with test_tls.serving(node_tls("server")) as scene:
        before = test_tls.refused("usage")
        shows = peer_context(client("operator", cluster_authority()), tmp_path)
        shows.set_alpn_protocols([RAFT_FRAMES])
        tls = Fixed(MutualContexts(node_tls("server").current.server, shows))
        with pytest.raises(ClusterMismatch, match="which may read status and not call"):
            await GrpcNetwork(scene.asyncio_loop, tls).open_raft_stream(scene.address, CLIENT)
        assert test_tls.refused("usage") == before + 1
        await scene.still_serves()


async def test_preface_and_hello_may_come_byte_by_byte() -> None:
    async with serving(Handler()) as (_, network, address):
        async with await trio.open_tcp_stream(*address) as raw:
            for byte in PREFACE + HELLO:
                await raw.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked(0.001)
            assert await answered(raw, len(WELCOME)) == WELCOME
        await still_serves(network, address)


@promises.INVALID_BYTES_STOP_NO_NODE
@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE",
        b"N" * 1000,
        PREFACE + prefixed([b"\xff" * 20]),
        PREFACE + prefixed([b""]),
        PREFACE + b"\1" + HELLO[1:],
        PREFACE + TOO_LONG,
        PREFACE + struct.pack(">?I", False, HELLO_BYTES_MAX + 1),
    ],
    ids=["nonsense", "noise", "garbage", "empty", "compressed", "oversized", "long hello"],
)
async def test_who_begins_with_no_hello_is_rejected_counted_and_harms_nobody(data: bytes) -> None:
    handler = Handler()
    async with serving(handler) as (_, network, address):
        before = rejected("hello")
        async with await trio.open_tcp_stream(*address) as raw:
            await raw.send_all(data)
            await closed(raw)
        await until_rejected("hello", before + 1)
        await still_serves(network, address)
        assert rejected("hello") == before + 1
        assert len(handler.streams) == 1


@pytest.mark.parametrize("said", [b"", b"N", PREFACE, PREFACE + HELLO[:-1]])
async def test_who_leaves_before_its_hello_is_forgotten_without_a_word(said: bytes) -> None:
    handler = Handler()
    async with serving(handler) as (_, network, address):
        before = rejected("hello")
        async with await trio.open_tcp_stream(*address) as raw:
            await raw.send_all(said)
            await raw.send_eof()
            await closed(raw)
        await still_serves(network, address)
        assert rejected("hello") == before
        assert len(handler.streams) == 1


@pytest.mark.parametrize("said", [PREFACE[:1], PREFACE, PREFACE + HELLO[:-1]])
async def test_who_does_not_say_who_it_is_is_dropped_counted_and_logged_now_and_then(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noti.rpc.admission.HELLO_WAIT_S", 0.05)
    before = rejected("hello")
    with capture_logs() as lines:
        async with serving(Handler()) as (_, network, address):
            for _ in range(2):
                async with await trio.open_tcp_stream(*address) as raw:
                    await raw.send_all(said)
                    await closed(raw)
            await still_serves(network, address)
    assert rejected("hello") == before + 2
    assert [line["reason"] for line in lines if line["log_level"] == "warning"] == [
        "said no hello for 0.05 s"
    ]


async def test_both_ends_have_tcp_look_for_the_other_one() -> None:
    handler = Handler()
    async with serving(handler) as (_, network, address):
        stream = await network.open_raft_stream(address, CLIENT)
        await stream.send(EVERY_MESSAGE[:1])
        await receive(stream)
        for end in (stream, handler.streams[0]):
            raw = connection_of(end).transport.get_extra_info("socket")
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await stream.aclose()


@promises.CONNECTIONS_BOUNDED
async def test_many_who_say_nothing_keep_no_node_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noti.listening.YOUNG_S", 0.0)
    limits = RpcLimits(connections_max=16)
    async with test_accepting.serving(limits) as (_, network, address):
        strangers = [await trio.open_tcp_stream(*address) for _ in range(50 * limits.unready_max)]
        for raw in strangers:
            with suppress(trio.BrokenResourceError):  # it made room already
                await raw.send_all(PREFACE)
        await still_serves(network, address)
        await test_accepting.until_taken(0)  # only who is let in has a slot
        for raw in strangers:
            await raw.aclose()


# --- what is held, and what ends a stream ---------------------------------------------------------


@asynccontextmanager
async def serving_with(
    handler: Handler, tls: Fixed | None
) -> AsyncIterator[tuple[GrpcNetwork, Address]]:
    asyncio_loop = AsyncioLoop()
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            network = GrpcNetwork(asyncio_loop, tls)
            async with trio.open_nursery() as inner:
                publishing = Publications()
                yield (
                    network,
                    await inner.start(network.serve_rpc, ANY_PORT, handler, handler, publishing),
                )
                inner.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


async def heard(data: bytes) -> tuple[Exception, int]:
    """Let a peer say this after its hello, and close; return what ends its stream, after what."""
    seen: list[Exception] = []
    messages: list[object] = []

    async def hear(stream: MessageStream) -> None:
        def take(batch: Sequence[object]) -> bool:
            messages.extend(batch)
            return True

        try:
            await stream.receive(take)
        except (MessageInvalid, PeerUnavailable) as error:
            seen.append(error)

    handler = Handler(after_stream=hear)
    async with serving(handler) as (_, _, address):
        async with await trio.open_tcp_stream(*address) as raw:
            await raw.send_all(PREFACE + HELLO)
            assert await answered(raw, len(WELCOME)) == WELCOME
            await raw.send_all(data)
            await raw.send_eof()
            await closed(raw)
        await handler.ended.wait()
    [error] = seen
    return error, len(messages)


@pytest.mark.parametrize(
    "data", [prefixed([b"\xff\xff"]), b"\1" + BATCH[1:], TOO_LONG], ids=["?", "compressed", "long"]
)
async def test_frame_that_no_node_sends_is_message_invalid(data: bytes) -> None:
    error, _ = await heard(BATCH + data)
    assert type(error) is MessageInvalid


async def test_whole_frames_before_one_that_the_end_cut_off_are_taken() -> None:
    error, messages = await heard(BATCH + BATCH + BATCH[:-1])
    assert type(error) is PeerUnavailable
    assert messages == 2


async def test_node_that_falls_is_noticed_at_once() -> None:
    handler = Handler()
    async with serving(handler) as (_, _, address):
        raw = socket.create_connection(address)
        raw.sendall(PREFACE + HELLO)
        while not handler.streams:  # noqa: ASYNC110
            await trio.sleep(0.005)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()  # with a reset
        await handler.ended.wait()


@pytest.mark.parametrize("tls", [False, True])
async def test_what_nobody_takes_is_not_read_and_comes_in_order_afterwards(tls: bool) -> None:
    may_take = trio.Event()
    received: list[object] = []
    count = 0

    async def listen(stream: MessageStream) -> None:
        await may_take.wait()
        received.extend(await receive_count(stream, count))

    handler = Handler(after_stream=listen)
    shows = node_tls("server", "client") if tls else None
    data = bytes(64 * 1024)
    async with serving_with(handler, shows) as (network, address):
        stream = await network.open_raft_stream(address, CLIENT)
        chunk = SnapshotChunk("n1", 1, 5, 1, CONFIGURATION, 0, data, len(data))
        while stream.send_at_once([chunk]):
            count += 1
            await trio.testing.wait_all_tasks_blocked()
        [served] = handler.streams
        inbox = connection_of(served).inbox
        assert WINDOW_BYTES < len(inbox._data) <= WINDOW_BYTES + READ_BYTES
        may_take.set()
        await handler.ended.wait()
        assert received == [chunk] * count
        await stream.aclose()


def sockets() -> int:
    """Return how many sockets this process has."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("tls", [False, True])
async def test_dial_that_is_cancelled_at_any_point_leaves_no_socket(tls: bool, older: bool) -> None:
    shows = None
    if tls:
        shows = with_older_server("server") if older else node_tls("server")
    async with test_tls.serving(shows) as scene:
        network = scene.network(*["client"] * tls)
        with called_are_older() if older else nullcontext():
            await still_serves(network, scene.address)
            before = await settled()
            turns = 0
            while not await dialed_for(turns, network, scene.address):
                turns += 1
                while sockets() > before:  # noqa: ASYNC110 - nobody announces it
                    await trio.sleep(0.001)
            assert turns > 5, "it was cancelled at several points"


async def settled() -> int:
    """Return how many sockets there are once it does not change any more."""
    count, same = sockets(), 0
    while same < 20:
        await trio.sleep(0.001)
        same, count = (same + 1 if sockets() == count else 0), sockets()
    return count


async def dialed_for(turns: int, network: GrpcNetwork, address: Address) -> bool:
    """Dial, and be cancelled after so many turns of the scheduler; return whether it was done."""
    streams: list[MessageStream] = []

    async def dial() -> None:
        streams.append(await network.open_raft_stream(address, CLIENT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        for _ in range(turns):
            if streams:
                break
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    for stream in streams:
        await stream.aclose()
    return bool(streams)
