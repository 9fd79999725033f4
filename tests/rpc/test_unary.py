"""Answers of unary calls, as a client sees them on the wire."""

from collections.abc import Sequence
from contextlib import closing

import h2.connection
import h2.events
import h2.settings
import pytest
import trio

from noti.address import Address
from noti.rpc.generated.noti import v1 as wire
from tests import promises
from tests.contract.test_rpc_network import Handler
from tests.rpc.test_grpc import framed, raft_request, serving
from tests.rpc.test_publish_service import Held, request

METHOD = "/noti.v1.Publisher/Publish"
CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", METHOD),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class Client:
    """A client by hand: it shows what came in one read, and says how much it takes."""

    def __init__(self, address: Address, window_bytes: int | None = None) -> None:
        self.raw, self.connection = raft_request(address, METHOD)
        if window_bytes is not None:
            setting = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
            self.connection.update_settings({setting: window_bytes})
        self._reading = trio.socket.from_stdlib_socket(self.raw.dup())

    def ask(self, *calls: int) -> None:
        for call in calls:
            if call != 1:
                self.connection.send_headers(call, CALL)
            self.connection.send_data(call, framed(bytes(request("x"))), end_stream=True)
        self.send()

    def close(self) -> None:
        self.raw.close()
        self._reading.close()

    def send(self) -> None:
        self.raw.sendall(self.connection.data_to_send())

    async def read(self) -> Sequence[h2.events.Event]:
        return self.connection.receive_data(await self._reading.recv(65536))

    async def read_answers(self, count: int) -> tuple[list[bytes], list[dict[str, str]], list[int]]:
        """Return the messages, the trailers, and how many answers ended in each read."""
        messages: list[bytes] = []
        trailers: list[dict[str, str]] = []
        ended: list[int] = []
        with trio.fail_after(10):
            while len(trailers) < count:
                events = await self.read()
                messages += [e.data for e in events if isinstance(e, h2.events.DataReceived)]
                ends = [e for e in events if isinstance(e, h2.events.TrailersReceived)]
                trailers += [{str(k): str(v) for k, v in e.headers} for e in ends]
                ended += [len(ends)] if ends else []
        return messages, trailers, ended


def answer(event_id: str) -> bytes:
    return framed(bytes(wire.PublishResponse(ids=[event_id])))


async def test_answers_that_are_known_together_come_in_one_piece() -> None:
    publishing = Held()
    async with serving(Handler(), publishing) as (_, _, address):
        with closing(Client(address)) as client:
            client.ask(1, 3, 5)
            await publishing.wait_for(3)
            for number, (_, done) in enumerate(publishing.waiting):
                done((f"id-{number}",))
            messages, trailers, ended = await client.read_answers(3)
    assert messages == [answer(f"id-{number}") for number in range(3)]
    assert trailers == [{"grpc-status": "0"}] * 3
    assert ended == [3]


async def test_answer_that_finds_no_room_comes_when_there_is_some() -> None:
    publishing = Held()
    async with serving(Handler(), publishing) as (_, _, address):
        with closing(Client(address, window_bytes=0)) as client:
            client.ask(1)
            await publishing.wait_for(1)
            publishing.waiting[0][1](("id",))
            with trio.move_on_after(0.2):
                _, trailers, _ = await client.read_answers(1)
                raise AssertionError(f"answered against the window: {trailers}")
            client.connection.increment_flow_control_window(1000, 1)
            client.send()
            messages, trailers, _ = await client.read_answers(1)
    assert b"".join(messages) == answer("id")
    assert trailers == [{"grpc-status": "0"}]


async def test_call_that_was_reset_is_not_answered_and_others_are() -> None:
    publishing = Held()
    async with serving(Handler(), publishing) as (_, _, address):
        with closing(Client(address)) as client:
            client.ask(1, 3)
            await publishing.wait_for(2)
            client.connection.reset_stream(1)
            client.ask(5)
            await publishing.wait_for(3)  # so the node has seen the reset
            for number, (_, done) in enumerate(publishing.waiting):
                done((f"id-{number}",))
            messages, _, _ = await client.read_answers(2)
    assert messages == [answer("id-1"), answer("id-2")]


@promises.CONNECTION_FAILS_ALONE
async def test_call_that_cannot_be_answered_harms_neither_the_log_nor_other_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers are written in the turn of the log that committed them."""

    def fail(*_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'streams'")

    held = Held()
    async with serving(Handler(), held) as (_, _, address):
        with closing(Client(address)) as one:
            one.ask(1)
            await held.wait_for(1)
            with monkeypatch.context() as broken:
                broken.setattr("noti.rpc.connections.PeerStream.put", fail)
                held.waiting[0][1](("id",))
        with closing(Client(address)) as other:
            other.ask(1)
            await held.wait_for(2)
            held.waiting[1][1](("id",))
            messages, _, _ = await other.read_answers(1)
            assert messages
