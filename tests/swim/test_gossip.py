"""The gossip service on sockets: what it does about garbage, wrong settings, and cancellation."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgpack
import pytest
import trio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.address import Address
from noti.descriptors import GOSSIP_STREAMS_MAX
from noti.errors import AddressInUse, ConfigInvalid
from noti.swim.core.keyring import KeyRing
from noti.swim.core.messages import (
    VERSIONS,
    Ack,
    Alive,
    MemberState,
    Ping,
    PushPull,
    RemoteNode,
)
from noti.swim.core.packets import decode_packet, encode
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.core.stream_layers import encode_question
from noti.swim.core.streams import StreamDecoder, encode_stream
from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from noti.swim.ports import GossipNetwork
from noti.swim.sockets import SocketDatagrams, SocketNetwork
from noti.trio_clock import TrioClock
from tests import promises

LOCALHOST = "127.0.0.1"


def make(
    name: str = "n1",
    bind: Address = (LOCALHOST, 0),
    advertise: Address | None = None,
    *,
    keys: KeyRing | None = None,
    encryption: Encryption = Encryption.REQUIRED,
    label: str = "",
    seeds: Sequence[Address] = (),
    network: GossipNetwork | None = None,
) -> Gossip:
    return Gossip(
        name=name,
        bind=bind,
        advertise=advertise,
        seeds=seeds,
        timing=SwimConfig.local(),
        network=network or SocketNetwork(),
        clock=TrioClock(),
        rng=random.Random(1),
        keys=keys,
        encryption=encryption,
        label=label,
    )


@asynccontextmanager
async def running(gossip: Gossip) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            yield await nursery.start(gossip.run)
        nursery.cancel_scope.cancel()


def rejected(reason: str) -> float:
    return REGISTRY.get_sample_value("noti_swim_packets_rejected_total", {"reason": reason}) or 0.0


async def exchange(address: Address, question: bytes) -> bytes:
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(question)
        answer = b""
        async for data in stream:
            answer += data
        return answer


@promises.INVALID_BYTES_STOP_NO_NODE
async def test_random_bytes_packets_are_counted_and_logged_once_and_pings_still_answered() -> None:
    before = rejected("undecodable")
    with capture_logs() as logs:
        async with (
            running(make()) as address,
            SocketNetwork().open_datagrams((LOCALHOST, 0)) as client,
        ):
            for number in range(20):
                client.send(b"\x63garbage" + bytes([number]), address)
            client.send(encode(Ping(7, "n1", None, "")), address)
            payload, source = await client.receive()
    assert (decode_packet(payload).messages, source) == ((Ack(7, None),), address)
    assert rejected("undecodable") == before + 20
    assert len([line for line in logs if line["event"] == "gossip rejected"]) == 1


async def test_node_with_keys_answers_a_sealed_ping_sealed_and_counts_a_plain_one() -> None:
    before = rejected("undecryptable")
    keys = KeyRing([bytes(32)])
    sealing = Sealing(keys, Encryption.REQUIRED, "blue", random.Random(1).randbytes)
    with capture_logs() as logs:
        async with (
            running(make(keys=keys, label="blue")) as address,
            SocketNetwork().open_datagrams((LOCALHOST, 0)) as client,
        ):
            client.send(b"\xf4\x04blue" + encode(Ping(6, "n1", None, "")), address)
            client.send(sealing.seal_packet(encode(Ping(7, "n1", None, ""))), address)
            payload, _ = await client.receive()
    assert decode_packet(sealing.open_packet(payload)).messages == (Ack(7, None),)
    assert rejected("undecryptable") == before + 1
    assert keys.primary.hex() not in str(logs)


async def test_packet_that_cannot_be_sent_is_logged_and_the_node_goes_on() -> None:
    nowhere = Alive(5, "n9", ("255.255.255.255", 1), b"", VERSIONS)  # needs SO_BROADCAST
    with capture_logs() as logs:
        async with (
            running(make()) as address,
            SocketNetwork().open_datagrams((LOCALHOST, 0)) as client,
        ):
            client.send(encode(nowhere), address)
            client.send(encode(Ping(7, "n1", None, "")), address)
            await client.receive()
    assert [line["source"] for line in logs if line["event"] == "gossip packet cannot be sent"] == [
        str(nowhere.address)
    ]


class MeasuringNetwork(SocketNetwork):
    """Notes how long the packets are that are sent."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    @asynccontextmanager
    async def open_datagrams(self, bind: Address) -> AsyncIterator[SocketDatagrams]:
        async with super().open_datagrams(bind) as datagrams:
            send = datagrams.send

            def measure(payload: bytes, to: Address) -> None:
                self.sizes.append(len(payload))
                send(payload, to)

            datagrams.send = measure  # type: ignore[method-assign]
            yield datagrams


@pytest.mark.parametrize("keys", [None, KeyRing([bytes(32)])])
async def test_packets_are_filled_to_their_limit_and_no_further_whatever_is_around_them(
    keys: KeyRing | None,
) -> None:
    sealing = Sealing(keys, Encryption.REQUIRED, "blue", random.Random(1).randbytes)
    network = MeasuringNetwork()
    gossip = make(keys=keys, label="blue", network=network)
    async with (
        running(gossip) as address,
        running(make("n2", keys=keys, label="blue")) as other,
        SocketNetwork().open_datagrams((LOCALHOST, 0)) as client,
    ):
        alive = RemoteNode("n2", other, b"\xff\x80", 1, MemberState.ALIVE, VERSIONS)
        await exchange(address, encode_question(PushPull(True, (alive,), b""), sealing))
        while len(gossip.members()) < 2:
            await gossip.wait_changed()
        for number in range(100):
            event = {"LTime": number, "Name": "e", "Payload": bytes(number), "CC": False}
            message = b"\x08\x03" + msgpack.packb(event, use_bin_type=False)
            client.send(sealing.seal_packet(message), address)
        with trio.fail_after(10):
            while max(network.sizes) < 1380:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
    assert max(network.sizes) <= SwimConfig.local().packet_bytes_max


async def test_packet_with_another_label_is_counted_and_not_answered() -> None:
    before = rejected("label")
    async with (
        running(make(label="blue")) as address,
        SocketNetwork().open_datagrams((LOCALHOST, 0)) as client,
    ):
        ping = encode(Ping(6, "n1", None, ""))
        for packet in (ping, b"\xf4\x03red" + ping, b"\xf4\x00" + ping):
            client.send(packet, address)
        client.send(b"\xf4\x04blue" + encode(Ping(7, "n1", None, "")), address)
        payload, _ = await client.receive()
    assert payload == b"\xf4\x04blue" + encode(Ack(7, None))
    assert rejected("label") == before + 3


async def test_random_bytes_stream_is_closed_and_state_still_served() -> None:
    before = rejected("stream")
    async with running(make()) as address:
        assert await exchange(address, b"GET / HTTP/1.1\r\n\r\n") == b""
        answer = await exchange(address, encode_stream(PushPull(True, (), b"")))
    state = StreamDecoder().feed(answer)
    assert isinstance(state, PushPull)
    assert state.join
    assert [node.name for node in state.nodes] == ["n1"]
    assert rejected("stream") == before + 1


async def test_ping_over_tcp_is_answered_only_under_our_name() -> None:
    async with running(make()) as address:
        right = await exchange(address, encode_stream(Ping(7, "n1", None, "")))
        assert StreamDecoder().feed(right) == Ack(7, None)
        assert await exchange(address, encode_stream(Ping(7, "other", None, ""))) == b""


async def test_of_more_streams_than_allowed_the_oldest_is_closed_and_the_newest_answered() -> None:
    async with running(make()) as address:
        streams = [await trio.open_tcp_stream(*address) for _ in range(GOSSIP_STREAMS_MAX)]
        answer = await exchange(address, encode_stream(Ping(7, "n1", None, "")))
        assert StreamDecoder().feed(answer) == Ack(7, None)
        assert await streams[0].receive_some() == b""
        for stream in streams:
            await stream.aclose()


async def test_taken_address_is_one_plain_error_that_names_it() -> None:
    async with running(make()) as address:
        with pytest.raises(AddressInUse, match=rf"{LOCALHOST}:{address[1]}.*--gossip-addr"):
            await make("n2", bind=address).run()


async def test_port_taken_for_tcp_only_is_rejected_too() -> None:
    network = SocketNetwork()

    async def nobody(stream: trio.abc.Stream, source: Address) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(network.serve_streams, (LOCALHOST, 0), nobody)
        with pytest.raises(AddressInUse, match=str(address[1])):
            await make(bind=address).run()
        nursery.cancel_scope.cancel()


async def test_listening_everywhere_needs_an_address_for_others() -> None:
    with pytest.raises(ConfigInvalid, match="advertise"):
        await make(bind=("0.0.0.0", 0)).run()
    gossip = make(bind=("0.0.0.0", 0), advertise=("localhost", 0))
    async with running(gossip) as (_, port):
        assert gossip.members()[0].address == (LOCALHOST, port)


async def test_tags_too_long_for_gossip_are_rejected_at_once() -> None:
    with pytest.raises(ConfigInvalid, match="512"):
        make().set_tags({"rpc": "x" * 512})


async def test_before_it_runs_there_are_no_members_and_nothing_to_leave() -> None:
    gossip = make()
    assert gossip.members() == ()
    await gossip.leave()


async def test_cancelling_frees_both_sockets() -> None:
    async with running(make()) as address:
        pass
    async with running(make(bind=address)) as again:
        assert again == address
