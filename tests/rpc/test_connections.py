"""Connections that grpclib would close although nothing is wrong with them."""

import socket

import pytest
import trio

from noti.errors import PeerUnavailable
from noti.raft.core.messages import AppendRequest, EntryKind
from noti.raft.core.records import new_entry
from noti.raft.ports import MessageStream
from noti.rpc.codec import encode_hello, encode_messages
from noti.rpc.connections import FRAME_BYTES_MAX, KeepAlive
from tests.contract.test_rpc_network import CLIENT, EVERY_MESSAGE, Handler, receive
from tests.rpc.test_grpc import framed, raft_request, serving

HELLO = framed(encode_hello(CLIENT))
BATCH = framed(next(iter(encode_messages(EVERY_MESSAGE[:1]))))
UNKNOWN_FRAME = b"\0\0\4\xee\0\0\0\0\0abcd"


class Listening(Handler):
    """Counts what comes."""

    def __init__(self) -> None:
        super().__init__(after_stream=self.listen)
        self.heard = 0

    async def listen(self, stream: MessageStream) -> None:
        try:
            while True:
                self.heard += len(await receive(stream))
        except PeerUnavailable:
            pass


async def until_heard(handler: Listening, number: int) -> None:
    with trio.fail_after(10):
        while handler.heard < number:
            assert not handler.ended.is_set(), f"closed after {handler.heard} messages"
            await trio.sleep(0.005)


async def test_frame_of_a_type_that_nobody_knows_is_skipped() -> None:
    """RFC 9113, 5.5: later versions may bring some, and clients may try them."""
    handler = Listening()
    async with serving(handler) as (_, _, address):
        raw, connection = raft_request(address)
        with raw:
            connection.send_data(1, HELLO)
            raw.sendall(connection.data_to_send() + UNKNOWN_FRAME)
            connection.send_data(1, BATCH)
            raw.sendall(connection.data_to_send())
            await until_heard(handler, 1)


async def test_first_long_frame_may_come_together_with_the_answer_to_our_settings() -> None:
    """h2 looks at the limit before it looks at the answer that raises it."""
    handler = Listening()
    async with serving(handler) as (_, _, address):
        raw, connection = raft_request(address)
        with raw:
            raw.setblocking(False)
            while connection.max_outbound_frame_size < FRAME_BYTES_MAX:
                connection.receive_data(await received(raw))
            entries = (new_entry(1, 1, EntryKind.COMMAND, bytes(40_000)),)
            request = AppendRequest(CLIENT.node_id, 1, 0, 0, 0, entries)
            long = framed(next(iter(encode_messages([request]))))
            connection.send_data(1, HELLO + long)
            raw.sendall(connection.data_to_send())
            await until_heard(handler, 1)


async def received(raw: socket.socket) -> bytes:
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(raw)
    return raw.recv(65536)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noti.rpc.accepting.KEEPALIVE", KeepAlive(0.05, 0.1))


@pytest.mark.usefixtures("impatient")
async def test_peer_that_speaks_lives_whatever_became_of_its_answers_to_pings() -> None:
    """They may stand behind megabytes of data, or come from a program that is busy."""
    handler = Listening()
    async with serving(handler) as (_, _, address):
        raw, connection = raft_request(address)
        with raw:
            connection.send_data(1, HELLO)
            for number in range(1, 31):
                connection.send_data(1, BATCH)
                raw.sendall(connection.data_to_send())
                await until_heard(handler, number)
                await trio.sleep(0.02)


@pytest.mark.usefixtures("impatient")
async def test_peer_from_which_nothing_comes_any_more_is_given_up() -> None:
    handler = Listening()
    async with serving(handler) as (_, _, address):
        raw, connection = raft_request(address)
        with raw:
            connection.send_data(1, HELLO)
            raw.sendall(connection.data_to_send())
            with trio.fail_after(10):
                await handler.ended.wait()
