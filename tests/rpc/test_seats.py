"""Nodes of the cluster get in, whoever else calls himself a node."""

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, nullcontext

import pytest
import trio
from structlog.testing import capture_logs

from noti.address import Address
from noti.descriptors import STRANGERS_MAX
from noti.errors import ClusterMismatch
from noti.raft.ports import Hello, Standing
from noti.rpc.accepting import RpcLimits
from noti.rpc.codec import encode_hello
from noti.rpc.frame_connections import PREFACE
from noti.rpc.inbox import prefixed
from noti.rpc.seats import Seats
from tests import promises
from tests.contract.test_rpc_network import CLIENT, EVERY_MESSAGE, Handler, receive
from tests.rpc.older_nodes import callers_are_older
from tests.rpc.test_accepting import publish, publishers, serving, taken, until_taken
from tests.rpc.test_frame_connections import rejected, until_rejected
from tests.rpc.test_grpc import raft_request

UNKNOWN, GOSSIPS, MEMBER = Standing
WAIT_S = 20


class Line:
    """A connection that can only be closed."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def lines_of(seats: Seats, *node_ids: str) -> list[Line]:
    lines = [Line() for _ in node_ids]
    for node_id, line in zip(node_ids, lines, strict=True):
        seats.take(node_id, line)
    return lines


STRANGERS = [f"s{n}" for n in range(STRANGERS_MAX)]


def test_of_too_many_strangers_the_first_makes_room_and_members_keep_their_seats() -> None:
    seats = Seats(lambda node_id: MEMBER if node_id.startswith("m") else UNKNOWN)
    members = lines_of(seats, *[f"m{n}" for n in range(3 * STRANGERS_MAX)])
    strangers = lines_of(seats, *STRANGERS)
    assert not any(line.closed for line in strangers)
    assert seats.take("new", Line()) == "s0"
    assert [line.closed for line in strangers[:2]] == [True, False]
    assert not any(line.closed for line in members)


def test_who_is_known_to_gossip_stays_while_others_can_make_room() -> None:
    seats = Seats(lambda node_id: GOSSIPS if node_id.startswith("g") else UNKNOWN)
    joining, *strangers = lines_of(seats, "g", *STRANGERS[1:])
    strangers += lines_of(seats, *[f"more {number}" for number in range(3 * STRANGERS_MAX)])
    assert not joining.closed
    assert [line.closed for line in strangers].count(False) == STRANGERS_MAX - 1


def test_stranger_that_gossip_does_not_know_makes_room_for_none_that_it_knows() -> None:
    seats = Seats(lambda node_id: GOSSIPS if node_id.startswith("s") else UNKNOWN)
    joining, late = lines_of(seats, *STRANGERS), Line()
    assert seats.take("late", late) == "late"
    assert not late.closed, "it can be told why"
    assert not any(line.closed for line in joining)


def test_node_that_has_joined_is_no_stranger_any_more() -> None:
    standings: defaultdict[str, Standing] = defaultdict(lambda: UNKNOWN)
    seats = Seats(standings.__getitem__)
    first, *others = lines_of(seats, *STRANGERS)
    standings["s0"] = MEMBER
    new, newer = Line(), Line()
    assert seats.take("new", new) is None
    assert seats.take("newer", newer) == "s1"
    assert [line.closed for line in others] == [True] + [False] * (STRANGERS_MAX - 2)
    assert not first.closed


def test_newer_connection_of_a_node_takes_the_place_of_its_older_one() -> None:
    seats = Seats(lambda _: UNKNOWN)
    older, newer = lines_of(seats, "a", "a")
    assert (older.closed, newer.closed) == (True, False)
    assert seats.take("a", newer) is None
    assert not newer.closed


def test_connection_that_is_closed_takes_nobodys_seat() -> None:
    seats = Seats(lambda _: UNKNOWN)
    lines = lines_of(seats, *STRANGERS)
    lines[5].abort()
    assert seats.take("new", Line()) is None


def stranger(number: int) -> Hello:
    return Hello("cluster", f"id {number}", f"stranger {number}")


def host() -> Handler:
    """Return a node whose only other member is the client."""
    return Handler(standing_of=lambda node_id: MEMBER if node_id == CLIENT.node_id else UNKNOWN)


def introduced(address: Address, hello: Hello, *, over_grpc: bool) -> socket.socket:
    """Return a connection whose node said who it is, and says and reads nothing more."""
    frame = prefixed([encode_hello(hello)])
    if not over_grpc:
        raw = socket.create_connection(address)
        raw.sendall(PREFACE + frame)
        return raw
    raw, connection = raft_request(address)
    connection.send_data(1, frame)
    raw.sendall(connection.data_to_send())
    return raw


@asynccontextmanager
async def strangers(
    handler: Handler, address: Address, number: int, *, over_grpc: bool = False
) -> AsyncIterator[None]:
    """Let strangers in, one after the other."""
    with ExitStack() as stack:
        for one in range(number):
            stack.enter_context(introduced(address, stranger(one), over_grpc=over_grpc))
            while len(handler.streams) <= one:  # noqa: ASYNC110 - nobody announces it
                await trio.sleep(0.005)
        yield


@promises.CONNECTIONS_BOUNDED
@pytest.mark.parametrize("over_grpc", [False, True], ids=["frames", "gRPC"])
async def test_strangers_in_any_number_keep_neither_nodes_nor_publishers_out(
    over_grpc: bool,
) -> None:
    handler, before, number = host(), rejected("stranger"), 3 * STRANGERS_MAX
    with capture_logs() as lines:
        async with (
            serving(RpcLimits(connections_max=8), handler) as (loop, network, address),
            strangers(handler, address, number, over_grpc=over_grpc),
        ):
            await until_rejected("stranger", before + number - STRANGERS_MAX)
            with callers_are_older() if over_grpc else nullcontext():
                stream = await network.open_raft_stream(address, CLIENT)
            await stream.send(EVERY_MESSAGE[:1])
            assert list(await receive(stream)) == EVERY_MESSAGE[:1]
            assert await publish(loop, address)
            await stream.aclose()
    told = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert told == ["rejected what a client sent"], "and nobody is told to raise a limit"


@promises.CONNECTIONS_BOUNDED
async def test_node_that_joins_gets_in_while_strangers_hold_all_that_they_may() -> None:
    handler = host()
    async with serving(RpcLimits(connections_max=2), handler) as (_, network, address):
        with publishers(address, 2):
            await until_taken(2)
            async with strangers(handler, address, STRANGERS_MAX):
                stream = await network.open_raft_stream(address, stranger(-1))
                await stream.send(EVERY_MESSAGE[:1])
                assert list(await receive(stream)) == EVERY_MESSAGE[:1]
                await stream.aclose()


async def test_stranger_without_a_seat_is_told_why() -> None:
    handler = Handler(standing_of=lambda node_id: UNKNOWN if node_id == "late" else GOSSIPS)
    async with (
        serving(RpcLimits(), handler) as (_, network, address),
        strangers(handler, address, STRANGERS_MAX),
    ):
        with pytest.raises(ClusterMismatch, match="gossip does not know it"):
            await network.open_raft_stream(address, Hello("cluster", "late", "late"))


@pytest.mark.parametrize("over_grpc", [False, True], ids=["frames", "gRPC"])
async def test_node_takes_the_place_of_no_publisher(over_grpc: bool) -> None:
    async with serving(RpcLimits(connections_max=1), host()) as (_, network, address):
        with callers_are_older() if over_grpc else nullcontext():
            stream = await network.open_raft_stream(address, CLIENT)
        with trio.fail_after(WAIT_S):
            await until_taken(0)
        with publishers(address, 1):
            await until_taken(1)
            await stream.send(EVERY_MESSAGE[:1])
            assert list(await receive(stream)) == EVERY_MESSAGE[:1]
        await stream.aclose()
    assert taken() == 0
