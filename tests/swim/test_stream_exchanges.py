"""Gossip over TCP: who is answered how, sealed or plain, and what both sides say when it fails."""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from noti.address import Address
from noti.swim.core.encoding import MessageType, pack
from noti.swim.core.events import Event, PingByStream, StreamPingAnswered
from noti.swim.core.keyring import KeyRing
from noti.swim.core.messages import (
    VERSIONS,
    Ack,
    Failure,
    MemberState,
    Ping,
    PushPull,
    RemoteNode,
    StreamMessage,
)
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.core.stream_layers import StreamReader, encode_question
from noti.swim.core.streams import StreamDecoder, encode_stream
from noti.swim.gossip import EXCHANGES_MAX, Gossip
from noti.swim.reporting import GossipReporter
from noti.swim.sockets import SocketNetwork
from noti.swim.stream_exchanges import StreamExchanges
from noti.trio_clock import TrioClock
from tests.swim.core.lzw_encoder import compress
from tests.swim.test_gossip import LOCALHOST, exchange, make, rejected, running

KEY, OTHER = bytes(32), bytes(range(16))
PING = Ping(7, "n1", None, "")
EMPTY = PushPull(True, (), b"")


class Unasked:
    """A core whose state nobody asks for."""

    has_left = False

    def state(self, *, join: bool) -> PushPull:
        raise AssertionError("a ping needs no state")

    def why_refused(self, state: PushPull) -> str | None:
        raise AssertionError("a ping has no state")


def sealing(*keys: bytes, label: str = "") -> Sealing:
    ring = KeyRing(keys) if keys else None
    return Sealing(ring, Encryption.REQUIRED, label, random.Random(1).randbytes)


def compressed(message: StreamMessage) -> bytes:
    return pack(MessageType.COMPRESS, {"Algo": 0, "Buf": compress(encode_stream(message))})


def read(answer: bytes, ours: Sealing) -> StreamMessage | None:
    return [*StreamReader(ours, answer=True).feed(answer)][-1]


def reasons_in(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [line["reason"] for line in logs if line["event"] == "gossip peer does not answer"]


def plain(answer: bytes) -> StreamMessage | None:
    return StreamDecoder().feed(answer)


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)


async def names(gossip: Gossip, count: int) -> list[str]:
    """Wait until a node has so many members."""
    while len(gossip.members()) < count:
        await gossip.wait_changed()
    return [member.name for member in gossip.members()]


@asynccontextmanager
async def peer(*answers: bytes) -> AsyncIterator[tuple[Address, list[bytes]]]:
    """Somebody who answers the streams dialled to it with these, and hears what they begin with."""
    heard: list[bytes] = []
    left = list(answers)

    async def answer(stream: trio.abc.Stream, source: Address) -> None:
        async with stream:
            heard.append(bytes(await stream.receive_some()))
            await stream.send_all(left.pop(0) if left else b"")

    async with trio.open_nursery() as nursery:
        address = await nursery.start(SocketNetwork().serve_streams, (LOCALHOST, 0), answer)
        yield address, heard
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.parametrize("label", ["", "blue"])
async def test_two_nodes_join_with_and_without_key_and_label(
    keys: Sequence[bytes], label: str
) -> None:
    ring = KeyRing(keys) if keys else None
    async with running(make(keys=ring, label=label)) as seed:
        joining = make("n2", keys=ring, label=label, seeds=[seed])
        async with running(joining):
            assert await names(joining, 2) == ["n1", "n2"]


@pytest.mark.parametrize("message", [PING, EMPTY])
async def test_compressed_question_is_answered(message: StreamMessage) -> None:
    async with running(make()) as address:
        answer = plain(await exchange(address, compressed(message)))
    assert isinstance(answer, Ack | PushPull)


@pytest.mark.parametrize("message", [PING, EMPTY])
async def test_sealed_question_is_answered_sealed(message: StreamMessage) -> None:
    ours = sealing(KEY, label="blue")
    async with running(make(keys=KeyRing([KEY]), label="blue")) as address:
        answer = await exchange(address, encode_question(message, ours))
    assert answer[0] == MessageType.ENCRYPT
    assert isinstance(read(answer, ours), Ack | PushPull)


async def test_plain_question_is_told_that_encryption_is_required() -> None:
    before = rejected("undecryptable")
    async with running(make(keys=KeyRing([KEY]))) as address:
        answer = plain(await exchange(address, encode_stream(EMPTY)))
    assert isinstance(answer, Failure)
    assert "not encrypted" in answer.reason
    assert rejected("undecryptable") == before + 1


async def test_sealed_question_without_our_key_is_told_so() -> None:
    async with running(make()) as address:
        answer = plain(await exchange(address, sealing(KEY).seal_stream(encode_stream(EMPTY))))
    assert isinstance(answer, Failure)
    assert "no gossip key" in answer.reason
    async with running(make(keys=KeyRing([KEY]))) as address:
        foreign = sealing(OTHER).seal_stream(encode_stream(EMPTY))
        answer = read(await exchange(address, foreign), sealing(KEY))
    assert isinstance(answer, Failure)
    assert "none of our keys" in answer.reason


async def test_question_with_another_label_is_told_so() -> None:
    before = rejected("label")
    async with running(make(label="blue")) as address:
        for start in (b"", b"\xf4\x03red"):
            answer = plain(await exchange(address, start + encode_stream(EMPTY)))
            assert isinstance(answer, Failure)
            assert "label" in answer.reason
    assert rejected("label") == before + 2


@pytest.mark.parametrize("encryption", [Encryption.UNDERSTOOD, Encryption.SENT])
async def test_both_are_answered_while_encryption_is_rolled_out(encryption: Encryption) -> None:
    async with running(make(keys=KeyRing([KEY]), encryption=encryption)) as address:
        to_plain = await exchange(address, encode_stream(EMPTY))
        to_sealed = await exchange(address, sealing(KEY).seal_stream(encode_stream(EMPTY)))
    assert (to_plain[0] == MessageType.ENCRYPT) == (encryption is Encryption.SENT)
    assert to_sealed[0] == MessageType.ENCRYPT


@pytest.mark.parametrize(
    ("seed_encryption", "joining_encryption"),
    [
        (None, Encryption.UNDERSTOOD),
        (Encryption.UNDERSTOOD, None),
        (Encryption.UNDERSTOOD, Encryption.SENT),
        (Encryption.SENT, Encryption.UNDERSTOOD),
        (Encryption.SENT, Encryption.REQUIRED),
        (Encryption.REQUIRED, Encryption.SENT),
    ],
)
async def test_nodes_of_neighbouring_steps_of_a_rollout_join(
    seed_encryption: Encryption | None, joining_encryption: Encryption | None
) -> None:
    def node(name: str, encryption: Encryption | None, *seeds: Address) -> Gossip:
        if encryption is None:
            return make(name, seeds=seeds)
        return make(name, keys=KeyRing([KEY]), encryption=encryption, seeds=seeds)

    seed = node("n1", seed_encryption)
    async with running(seed) as address:
        joining = node("n2", joining_encryption, address)
        async with running(joining):
            assert await names(joining, 2) == ["n1", "n2"]
            assert await names(seed, 2) == ["n1", "n2"]


@pytest.mark.parametrize("keys", [None, KeyRing([OTHER])])
async def test_node_without_the_key_does_not_join_and_says_why(keys: KeyRing | None) -> None:
    with capture_logs() as logs:
        async with running(make(keys=KeyRing([KEY]))) as seed:
            joining = make("n2", keys=keys, seeds=[seed])
            async with running(joining):
                await until(lambda: reasons_in(logs))
                assert [member.name for member in joining.members()] == ["n2"]
    reason = reasons_in(logs)[0]
    assert "not encrypted" in reason or "none of our keys" in reason


async def test_state_that_is_refused_is_told_why() -> None:
    versions = bytes([1, 5, 2, 2, 4, 4])
    node = RemoteNode("n2", (LOCALHOST, 1), b"\xff\x80", 1, MemberState.ALIVE, versions)
    gossip = make()
    async with running(gossip) as address:
        answer = plain(await exchange(address, encode_stream(PushPull(True, (node,), b""))))
        assert len(gossip.members()) == 1
    assert isinstance(answer, Failure)
    assert "delegate version" in answer.reason


async def test_odd_record_is_skipped_and_counted_and_the_others_join() -> None:
    before = rejected("record")
    gossip = make()
    async with running(gossip) as address, running(make("n2")) as other:
        nodes = tuple(
            RemoteNode(name, other, b"\xff\x80", 1, MemberState.ALIVE, VERSIONS)
            for name in ("tab\there", "n2", "x" * 200)
        )
        await exchange(address, encode_stream(PushPull(True, nodes, b"")))
        assert await names(gossip, 2) == ["n1", "n2"]
    assert rejected("record") == before + 2


async def test_reason_of_the_other_side_is_logged() -> None:
    with capture_logs() as logs:
        async with (
            peer(encode_stream(Failure("no such\ncluster"))) as (seed, _),
            running(make(seeds=[seed])),
        ):
            await until(lambda: reasons_in(logs))
    assert reasons_in(logs)[0] == "rejected by the other side: no such cluster"


async def test_dialler_sends_its_label_once_and_reads_an_answer_without() -> None:
    async with (
        peer(encode_stream(EMPTY)) as (seed, heard),
        running(make(label="blue", seeds=[seed])),
    ):
        await until(lambda: heard)
    assert heard[0].startswith(b"\xf4\x04blue\x06")


async def test_few_strangers_are_dialled_at_a_time() -> None:
    dialled: list[trio.abc.Stream] = []

    async def never_answer(stream: trio.abc.Stream, source: Address) -> None:
        async with stream:
            dialled.append(stream)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        seeds = [
            await nursery.start(SocketNetwork().serve_streams, (LOCALHOST, 0), never_answer)
            for _ in range(EXCHANGES_MAX + 4)
        ]
        async with running(make(seeds=seeds)) as address:
            await until(lambda: len(dialled) == EXCHANGES_MAX)
            # Others are still answered, and no more are dialled until one of these gives up.
            assert plain(await exchange(address, encode_stream(PING))) == Ack(7, None)
            assert len(dialled) == EXCHANGES_MAX
        nursery.cancel_scope.cancel()


async def test_answer_arrives_although_the_question_was_not_read_to_its_end() -> None:
    async with running(make()) as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"\x0a" + (2**22).to_bytes(4, "big") + bytes(2**20))
        answer = b""
        async for data in stream:
            answer += data
    assert isinstance(plain(answer), Failure)


@pytest.mark.parametrize(
    ("answers", "counts"),
    [([Ack(7, None)], True), ([Ack(8, None)], False), ([EMPTY], False), ([], False)],
)
async def test_ping_over_tcp_counts_only_when_it_is_answered_under_its_number(
    answers: list[StreamMessage], counts: bool
) -> None:
    happened: list[Event] = []
    async with peer(*(encode_stream(each) for each in answers)) as (to, heard):
        streams = StreamExchanges(
            "n1",
            (LOCALHOST, 1),
            core=Unasked(),
            handle=happened.append,
            network=SocketNetwork(),
            sealing=sealing(),
            timeout_s=5.0,
            reporter=GossipReporter(TrioClock()),
            rng=random.Random(1),
        )
        await streams.carry_out(PingByStream(7, "n2", to, timeout_s=5.0))
    assert plain(heard[0]) == Ping(7, "n2", (LOCALHOST, 1), "n1")
    assert happened == ([StreamPingAnswered(7)] if counts else [])
