"""What every version of the gossip network port promises: the real one and the in-memory one."""

import random
from collections.abc import Callable

import pytest
import trio

from noti.address import Address
from noti.errors import AddressInUse, PeerUnavailable
from noti.swim.ports import GossipNetwork
from noti.swim.sockets import SocketNetwork
from tests.ports import free_port
from tests.simulation.memory_gossip import MemoryNet

LOCALHOST = "127.0.0.1"


def sockets() -> GossipNetwork:
    return SocketNetwork()


def memory() -> GossipNetwork:
    return MemoryNet(random.Random(1)).host(LOCALHOST, "localhost")


@pytest.fixture(params=[sockets, memory])
def network(request: pytest.FixtureRequest) -> GossipNetwork:
    make: Callable[[], GossipNetwork] = request.param
    return make()


async def echo(stream: trio.abc.Stream, source: Address) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)


async def test_packet_arrives_with_its_source(network: GossipNetwork) -> None:
    async with (
        network.open_datagrams((LOCALHOST, 0)) as one,
        network.open_datagrams((LOCALHOST, 0)) as two,
    ):
        assert one.address[1] != two.address[1]
        one.send(b"hello", two.address)
        with trio.fail_after(30):
            assert await two.receive() == (b"hello", one.address)


async def test_packet_of_the_largest_size_we_send_arrives_whole(network: GossipNetwork) -> None:
    async with (
        network.open_datagrams((LOCALHOST, 0)) as one,
        network.open_datagrams((LOCALHOST, 0)) as two,
    ):
        one.send(bytes(1400), two.address)
        with trio.fail_after(30):
            payload, _ = await two.receive()
        assert payload == bytes(1400)


async def test_packets_that_have_arrived_are_taken_at_once_and_not_more_than_wanted(
    network: GossipNetwork,
) -> None:
    async with (
        network.open_datagrams((LOCALHOST, 0)) as one,
        network.open_datagrams((LOCALHOST, 0)) as two,
    ):
        assert two.arrived(10) == []
        for number in range(5):
            one.send(bytes([number]), two.address)
        received: list[tuple[bytes, Address]] = []
        with trio.fail_after(30):
            while len(received) < 5:
                received.append(await two.receive())
                more = two.arrived(2)
                assert len(more) <= 2
                received += more
        assert sorted(received) == [(bytes([number]), one.address) for number in range(5)]


async def test_taken_datagram_address_is_refused_with_its_name(network: GossipNetwork) -> None:
    async with network.open_datagrams((LOCALHOST, 0)) as taken:
        with pytest.raises(AddressInUse, match=str(taken.address[1])):
            async with network.open_datagrams(taken.address):
                pass


async def test_datagram_address_is_free_again_afterwards(network: GossipNetwork) -> None:
    async with network.open_datagrams((LOCALHOST, 0)) as first:
        address = first.address
    async with network.open_datagrams(address) as again:
        assert again.address == address


async def test_packet_to_nobody_is_lost_without_an_error(network: GossipNetwork) -> None:
    async with network.open_datagrams((LOCALHOST, 0)) as gone:
        nobody = gone.address
    async with (
        network.open_datagrams((LOCALHOST, 0)) as one,
        network.open_datagrams((LOCALHOST, 0)) as two,
    ):
        one.send(b"lost", nobody)
        one.send(b"found", two.address)
        with trio.fail_after(30):
            assert await two.receive() == (b"found", one.address)


async def test_stream_carries_bytes_both_ways_and_ends(network: GossipNetwork) -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(network.serve_streams, (LOCALHOST, 0), echo)
        data = bytes(range(256)) * 1000
        received = b""
        with trio.fail_after(30):
            async with await network.open_stream(address) as stream:
                await stream.send_all(data)
                while len(received) < len(data):
                    received += await stream.receive_some()
        assert received == data
        nursery.cancel_scope.cancel()


async def test_closing_one_end_ends_the_other(network: GossipNetwork) -> None:
    ended = trio.Event()

    async def read_to_end(stream: trio.abc.Stream, source: Address) -> None:
        async with stream:
            async for _ in stream:
                pass
            ended.set()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(network.serve_streams, (LOCALHOST, 0), read_to_end)
        await (await network.open_stream(address)).aclose()
        with trio.fail_after(30):
            await ended.wait()
        nursery.cancel_scope.cancel()


async def test_stream_is_taken_with_the_address_at_its_other_end(network: GossipNetwork) -> None:
    sources: list[Address] = []

    async def note(stream: trio.abc.Stream, source: Address) -> None:
        async with stream:
            sources.append(source)

    async with trio.open_nursery() as nursery:
        address = await nursery.start(network.serve_streams, (LOCALHOST, 0), note)
        with trio.fail_after(30):
            async with await network.open_stream(address) as stream:
                assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert [host for host, _ in sources] == [LOCALHOST]


async def test_dialling_nobody_is_refused(network: GossipNetwork) -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(network.serve_streams, (LOCALHOST, 0), echo)
        nursery.cancel_scope.cancel()
    with pytest.raises(PeerUnavailable, match=str(address[1])):
        await network.open_stream(address)


async def test_taken_stream_address_is_refused_with_its_name(network: GossipNetwork) -> None:
    async with trio.open_nursery() as nursery:
        address = await nursery.start(network.serve_streams, (LOCALHOST, 0), echo)
        with pytest.raises(AddressInUse, match=str(address[1])):
            await network.serve_streams(address, echo)
        nursery.cancel_scope.cancel()


async def test_streams_and_datagrams_share_a_port_number(network: GossipNetwork) -> None:
    there = LOCALHOST, free_port()  # the system would look at UDP alone
    async with network.open_datagrams(there) as datagrams, trio.open_nursery() as nursery:
        address = await nursery.start(network.serve_streams, datagrams.address, echo)
        assert address == datagrams.address == there
        nursery.cancel_scope.cancel()


async def test_name_resolves_to_addresses(network: GossipNetwork) -> None:
    assert (LOCALHOST, 7946) in await network.resolve(("localhost", 7946))
    assert await network.resolve((LOCALHOST, 7946)) == [(LOCALHOST, 7946)]


async def test_unknown_name_is_unavailable(network: GossipNetwork) -> None:
    with pytest.raises(PeerUnavailable, match="nowhere"):
        await network.resolve(("nowhere.invalid", 7946))
