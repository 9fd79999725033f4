"""What every `RpcNetwork` promises, asked of the real one and of the simulator's."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from grpclib.client import Channel
from grpclib.exceptions import GRPCError

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.errors import (
    AddressInUse,
    ClusterMismatch,
    NotiError,
    Overloaded,
    PeerUnavailable,
)
from noti.publishing.ports import Draft, Outcome
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    EntryKind,
    NodeId,
    PeerMessage,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import new_entry
from noti.raft.ports import Hello, MessageStream, Standing
from noti.rpc.answers import NodeRole, ServerInfo
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.ports import RpcNetwork
from noti.rpc.publish_client import wire_event
from tests.rpc.older_nodes import (
    called_are_older,
    callers_are_older,
    older_tls,
    with_older_client,
    with_older_server,
)
from tests.rpc.tls_peers import Fixed, node_tls
from tests.simulation.memory_rpc import MemoryRpcNetwork, RpcHub

ANY_PORT = ("127.0.0.1", 0)

CONFIGURATION = encode_configuration(Configuration("c", ("n1", "n2")))

EVERY_MESSAGE: list[PeerMessage] = [
    VoteRequest("n1", 3, 10, 2, pre=True, transfer=False),
    VoteResponse("n1", 3, granted=True, pre=True),
    AppendRequest(
        "n1",
        3,
        10,
        2,
        9,
        (
            new_entry(11, 3, EntryKind.NOOP, b""),
            new_entry(12, 3, EntryKind.COMMAND, b"\x00payload\xff"),
            new_entry(13, 3, EntryKind.CONFIGURATION, CONFIGURATION),
        ),
    ),
    AppendRequest("n1", 3, 0, 0, 0, ()),
    AppendAccepted("n1", 3, 13),
    AppendRejected("n1", 3, 10, 7, 2),
    SnapshotChunk("n1", 3, 9, 2, CONFIGURATION, 100, b"data", 104),
    TimeoutNow("n1", 3),
]


@dataclass
class Handler:
    """A node that remembers what it was asked, and echoes messages."""

    name: str = "server"
    streams: list[MessageStream] = field(default_factory=list)
    ended: trio.Event = field(default_factory=trio.Event)
    after_stream: Callable[[MessageStream], Awaitable[None]] | None = None
    standing_of: Callable[[NodeId], Standing] = lambda _: Standing.MEMBER

    def hello(self) -> Hello:
        return Hello("cluster", f"id-{self.name}", self.name)

    def admit(self, peer: Hello, *, proven: bool) -> None:
        if peer.cluster_id != "cluster":
            raise ClusterMismatch(f"{peer.name} belongs to another cluster: {peer.cluster_id}")

    def standing(self, node_id: NodeId) -> Standing:
        return self.standing_of(node_id)

    async def raft_stream(self, stream: MessageStream) -> None:
        self.streams.append(stream)
        try:
            if self.after_stream is not None:
                await self.after_stream(stream)
                return
            while True:
                await stream.send(await receive(stream))
        except PeerUnavailable:
            pass
        finally:
            self.ended.set()

    def servers(self) -> list[ServerInfo]:
        return [ServerInfo("id-server", "127.0.0.1:8400", True)]

    def is_leader(self) -> bool:
        return True

    def role(self) -> NodeRole:
        return NodeRole(self.name, "leader", 7, self.name)

    def serving(self) -> bool:
        return True


class Publications:
    """A node that has events committed at once, unless it is told to fail."""

    def __init__(self, failure: NotiError | None = None) -> None:
        self.failure = failure
        self.drafts: list[Draft] = []

    def submit(
        self, drafts: Sequence[Draft], done: Callable[[Outcome], None], *, at_once: bool = False
    ) -> None:
        if self.failure is not None:
            done(self.failure)
            return
        self.drafts += drafts
        done(tuple(draft.id or f"made-{len(self.drafts)}" for draft in drafts))


NetworkFactory = Callable[[], AbstractAsyncContextManager[RpcNetwork]]


@asynccontextmanager
async def real_network(tls: Fixed | None = None) -> AsyncIterator[RpcNetwork]:
    asyncio_loop = AsyncioLoop()
    async with trio.open_nursery() as nursery:
        await nursery.start(asyncio_loop.run)
        yield GrpcNetwork(asyncio_loop, tls)
        nursery.cancel_scope.cancel()


NAMES = ("server", "client", "stranger")


@asynccontextmanager
async def calls_older_nodes() -> AsyncIterator[RpcNetwork]:
    with called_are_older():
        async with real_network() as network:
            yield network


@asynccontextmanager
async def is_called_by_older_nodes() -> AsyncIterator[RpcNetwork]:
    with callers_are_older():
        async with real_network() as network:
            yield network


@asynccontextmanager
async def memory_network() -> AsyncIterator[RpcNetwork]:
    yield MemoryRpcNetwork(RpcHub(random.Random(1)), ("127.0.0.1", 1))


NETWORKS: dict[str, NetworkFactory] = {
    "frames": real_network,
    "frames with TLS": lambda: real_network(node_tls(*NAMES)),
    "to an older node": calls_older_nodes,
    "to an older node with TLS": lambda: real_network(with_older_server(*NAMES)),
    "from an older node": is_called_by_older_nodes,
    "from an older node with TLS": lambda: real_network(with_older_client(*NAMES)),
    "memory": memory_network,
}


@pytest.fixture(params=NETWORKS)
def open_network(request: pytest.FixtureRequest) -> NetworkFactory:
    return NETWORKS[request.param]


CLIENT = Hello("cluster", "id-client", "client")


@asynccontextmanager
async def served(
    network: RpcNetwork, handler: Handler, publishing: Publications | None = None
) -> AsyncIterator[tuple[Address, trio.CancelScope]]:
    publishing = publishing or Publications()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(network.serve_rpc, ANY_PORT, handler, handler, publishing)
            yield address, nursery.cancel_scope
            nursery.cancel_scope.cancel()


async def receive(stream: MessageStream) -> Sequence[PeerMessage]:
    """Return the next batch."""
    batches: list[Sequence[PeerMessage]] = []

    def enough(batch: Sequence[PeerMessage]) -> bool:
        batches.append(batch)
        return False

    await stream.receive(enough)
    return batches[0]


async def receive_count(stream: MessageStream, count: int) -> list[PeerMessage]:
    received: list[PeerMessage] = []
    while len(received) < count:
        received += await receive(stream)
    return received


async def test_every_message_arrives_as_it_was_sent(open_network: NetworkFactory) -> None:
    async with open_network() as network, served(network, Handler()) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        await stream.send(EVERY_MESSAGE)
        assert await receive_count(stream, len(EVERY_MESSAGE)) == EVERY_MESSAGE
        await stream.aclose()


async def test_both_sides_learn_who_the_other_is(open_network: NetworkFactory) -> None:
    handler = Handler()
    async with open_network() as network, served(network, handler) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        await stream.send(EVERY_MESSAGE[:1])
        await receive(stream)
        assert stream.peer == handler.hello()
        assert handler.streams[0].peer == CLIENT
        await stream.aclose()


async def test_order_is_kept_over_many_batches(open_network: NetworkFactory) -> None:
    messages = [VoteRequest("n1", term, 0, 0, False, False) for term in range(1, 301)]

    async def send_all(stream: MessageStream) -> None:
        for message in messages:
            await stream.send([message])

    async with open_network() as network, served(network, Handler()) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, stream)
            assert await receive_count(stream, len(messages)) == messages
        await stream.aclose()


async def test_what_is_sent_at_once_keeps_its_order_and_is_refused_when_it_had_to_wait(
    open_network: NetworkFactory,
) -> None:
    data = bytes(64 * 1024)
    taken: list[PeerMessage] = []
    received: list[PeerMessage] = []
    may_read = trio.Event()
    sent = trio.Event()

    async def listen(stream: MessageStream) -> None:
        await may_read.wait()
        received.extend(await receive_count(stream, len(taken)))
        await sent.wait()  # returning closes the stream, and a sender that waits may be told so

    handler = Handler(after_stream=listen)
    async with open_network() as network, served(network, handler) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        for offset in range(10_000):
            chunk = SnapshotChunk("n1", 1, 5, 1, CONFIGURATION, offset, data, 10_000 + len(data))
            if not stream.send_at_once([chunk]):
                break
            taken.append(chunk)
        assert 0 < len(taken) < 10_000
        last = VoteRequest("n1", 7, 0, 0, False, False)
        taken.append(last)
        may_read.set()
        with trio.fail_after(30):
            await stream.send([last])
            sent.set()
            await handler.ended.wait()
        assert received == taken
        await stream.aclose()
        with pytest.raises(PeerUnavailable):
            stream.send_at_once(EVERY_MESSAGE[:1])


async def test_large_messages_pass_one_by_one(open_network: NetworkFactory) -> None:
    data = bytes(range(256)) * 24 * 1024  # 6 MiB each, 18 MiB in one call
    messages: list[PeerMessage] = [
        SnapshotChunk("n1", 1, 5, 1, CONFIGURATION, offset, data, 3 * len(data))
        for offset in (0, len(data), 2 * len(data))
    ]

    async def send_all(stream: MessageStream) -> None:
        await stream.send(messages)

    async with open_network() as network, served(network, Handler()) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, stream)
            assert await receive_count(stream, 3) == messages
        await stream.aclose()


async def test_stranger_is_refused_with_the_reason(open_network: NetworkFactory) -> None:
    handler = Handler()
    async with open_network() as network, served(network, handler) as (address, _):
        with pytest.raises(ClusterMismatch, match="stranger belongs to another cluster: other"):
            await network.open_raft_stream(address, Hello("other", "id-x", "stranger"))
        assert handler.streams == []


async def test_nobody_listening_is_unavailable(open_network: NetworkFactory) -> None:
    async with open_network() as network:
        async with served(network, Handler()) as (address, _):
            pass
        with pytest.raises(PeerUnavailable), trio.fail_after(30):
            await network.open_raft_stream(address, CLIENT)


async def test_taken_address_is_one_clear_line(open_network: NetworkFactory) -> None:
    async with open_network() as network, served(network, Handler()) as (address, _):
        with pytest.raises(AddressInUse, match="--rpc-addr") as caught:
            await network.serve_rpc(address, Handler(), Handler(), Publications())
        assert "\n" not in str(caught.value)


async def test_dialer_closing_ends_the_served_stream(open_network: NetworkFactory) -> None:
    handler = Handler()
    async with open_network() as network, served(network, handler) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        await stream.send(EVERY_MESSAGE[:1])
        await receive(stream)
        await stream.aclose()
        await handler.ended.wait()
        with pytest.raises(PeerUnavailable):
            await receive(stream)
        with pytest.raises(PeerUnavailable):
            await stream.send(EVERY_MESSAGE[:1])


async def test_server_closing_ends_the_dialed_stream(open_network: NetworkFactory) -> None:
    async def one_answer(stream: MessageStream) -> None:
        await stream.send(await receive(stream))

    handler = Handler(after_stream=one_answer)
    async with open_network() as network, served(network, handler) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        await stream.send(EVERY_MESSAGE[:1])
        assert list(await receive(stream)) == EVERY_MESSAGE[:1]
        with pytest.raises(PeerUnavailable):
            await receive(stream)
        await stream.aclose()


async def test_cancelled_server_ends_its_streams(open_network: NetworkFactory) -> None:
    handler = Handler()
    async with open_network() as network:
        stream = None
        async with served(network, handler) as (address, scope):
            stream = await network.open_raft_stream(address, CLIENT)
            await stream.send(EVERY_MESSAGE[:1])
            await receive(stream)
            scope.cancel()
        assert handler.ended.is_set()
        with trio.fail_after(30):
            with pytest.raises(PeerUnavailable):
                await receive(stream)
            await stream.aclose()


async def test_cancelled_hearing_loses_nothing(open_network: NetworkFactory) -> None:
    async with open_network() as network, served(network, Handler()) as (address, _):
        stream = await network.open_raft_stream(address, CLIENT)
        received: list[PeerMessage] = []
        messages = [VoteRequest("n1", term, 0, 0, False, False) for term in range(1, 101)]
        for message in messages:
            await stream.send([message])

        def take(batch: Sequence[PeerMessage]) -> bool:
            received.extend(batch)
            return len(received) < len(messages)

        while len(received) < len(messages):
            # Cancelled at a different moment each time.
            with trio.move_on_after(0.0005):
                await stream.receive(take)
        assert received == messages
        await stream.aclose()


async def test_two_streams_do_not_disturb_each_other(open_network: NetworkFactory) -> None:
    async with open_network() as network, served(network, Handler()) as (address, _):
        first = await network.open_raft_stream(address, CLIENT)
        second = await network.open_raft_stream(address, CLIENT)
        await first.aclose()
        await second.send(EVERY_MESSAGE)
        assert await receive_count(second, len(EVERY_MESSAGE)) == EVERY_MESSAGE
        await second.aclose()


DRAFTS = [
    Draft(("a.b", "https://example.com/ü"), "line 1\nline 2 ✓"),
    Draft(("t",), "", "given-id"),
    Draft(("t",), "", "traced", trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


async def publish(network: RpcNetwork, to: Address, drafts: Sequence[Draft]) -> tuple[str, ...]:
    """Be a publisher outside of the cluster; every network has its own kind of them."""
    if isinstance(network, MemoryRpcNetwork):
        outcome = await network.publish(to, drafts)
        if isinstance(outcome, NotiError):
            raise outcome
        return outcome
    assert isinstance(network, GrpcNetwork)
    events = [wire_event(one) for one in drafts]

    async def call() -> tuple[str, ...]:
        context = None if network._tls is None else older_tls(*NAMES).current.client
        async with Channel(*to, ssl=context) as channel:
            request = wire.PublishRequest(events=events)
            return tuple((await wire.PublisherStub(channel).publish(request)).ids)

    return await network._asyncio_loop.call(call)


async def test_drafts_arrive_as_they_were_sent_and_ids_come_back(
    open_network: NetworkFactory,
) -> None:
    publishing = Publications()
    async with open_network() as network, served(network, Handler(), publishing) as (address, _):
        assert await publish(network, address, DRAFTS) == ("made-3", "given-id", "traced")
        assert publishing.drafts == DRAFTS


async def test_publisher_receives_why_nothing_was_committed(
    open_network: NetworkFactory,
) -> None:
    publishing = Publications(Overloaded("too much waits"))
    async with open_network() as network, served(network, Handler(), publishing) as (address, _):
        with pytest.raises((GRPCError, Overloaded), match="too much waits"):
            await publish(network, address, DRAFTS)
