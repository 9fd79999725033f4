"""What clients of WebSockets say is heard in turns, and harms nobody; over real sockets."""

import math
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Pong, TextMessage

from noti.history.selectors import ALL_TOPICS
from noti.streams import open_streams, sockets
from noti.streams.client_messages import RECEIVE_BYTES, ClientMessages
from noti.streams.feed import Audience, Feed, View
from noti.streams.framing import WEBSOCKET_OBJECTS
from noti.streams.hub import Hub
from noti.streams.open_streams import StreamLimits
from noti.streams.sending import Sending
from noti.streams.websocket_reader import PONGS_MAX
from tests.http.stage import LIMIT_S, hub, notification, notifications, running, until
from tests.streams.websocket_clients import PING, TEXT, close_with, masked

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}), framing=WEBSOCKET_OBJECTS)


class Speaker:
    """The far end of an adopted WebSocket; takes off the socket only what it is told to."""

    def __init__(self, near: socket.socket) -> None:
        self.near = near
        self.sock = trio.socket.from_stdlib_socket(near)
        self.heard: list[Event] = []
        self.ended = False
        self._protocol = Connection(ConnectionType.CLIENT)

    async def hear(self, kind: type[Event], number: int = 1) -> list[Event]:
        """Take what comes until there are so many of a kind; return all of that kind."""
        while len(found := [one for one in self.heard if isinstance(one, kind)]) < number:
            assert not self.ended, self.heard
            await self.hear_some()
        return found

    async def hear_some(self) -> None:
        with trio.fail_after(LIMIT_S):
            data = await self.sock.recv(4096)
        if not data:
            self.ended = True
            return
        self._protocol.receive_data(data)
        self.heard += self._protocol.events()
        assert not any(
            isinstance(one, CloseConnection) and one.code == 1002 for one in self.heard
        ), "what came was no WebSocket"

    async def hear_text(self, text: str) -> None:
        """Take what comes until this is in it."""
        while text not in "".join(one.data for one in self.heard if isinstance(one, TextMessage)):
            assert not self.ended
            await self.hear_some()

    async def flood(self, frame: bytes) -> None:
        """Say the same without end."""
        said, frames = 0, frame * 100
        while True:
            await trio.lowlevel.wait_writable(self.near)
            said += self.near.send(frames[said % len(frame) :])


@contextmanager
def speaker(there: Hub) -> Iterator[Speaker]:
    """Let a hub adopt a connection with small buffers."""
    with socket.socket() as listener:
        sockets.prepare(listener, there.config)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    far.setblocking(False)
    near.setblocking(False)
    with closing(near):
        there.adopt(far, open_streams.Reader(ALL, there.feed.newest_seq, "127.0.0.1"))
        yield Speaker(near)


async def test_ping_is_answered_among_the_events() -> None:
    async with running(hub()) as there:
        with speaker(there) as one:
            there.publish(notifications(1, 2))
            await one.sock.send(masked(PING, b"a"))
            assert [pong.payload for pong in await one.hear(Pong) if isinstance(pong, Pong)] == [
                b"a"
            ]
            await one.hear_text("id-2")


async def test_frame_that_comes_byte_by_byte_is_understood() -> None:
    async with running(hub()) as there:
        with speaker(there) as one:
            for byte in masked(TEXT, b"hello") + masked(PING, b"a"):
                await one.sock.send(bytes((byte,)))
            assert await one.hear(Pong)


async def test_no_pong_is_put_into_an_unsent_event() -> None:
    """Who does not take what it is sent is not heard meanwhile; then, everything is whole."""
    async with running(hub()) as there:
        with speaker(there) as one:
            there.publish([notification(seq, data="x" * 20_000) for seq in range(1, 40)])
            await until(lambda: any(stream.is_blocked for stream in there._sending.not_in_step()))
            for number in range(10):
                await one.sock.send(masked(PING, b"%d" % number))
            await one.hear_text("id-39")
            assert len(await one.hear(Pong, 10)) == 10


async def test_flood_of_pings_is_held_back_by_its_own_answers() -> None:
    """Nothing is kept for who does not take pongs: he is not read any more."""
    async with running(hub(stall_timeout_s=1000)) as there:
        with speaker(there) as flooding, speaker(there) as other:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flooding.flood, masked(PING, b"x" * 125))
                streams = there._sending.adopted.values()
                await until(lambda: any(stream.is_blocked for stream in streams))
                nursery.cancel_scope.cancel()
            assert max(len(stream.unsent) for stream in streams) <= PONGS_MAX * 127
            there.publish(notifications(1, 1))
            await other.hear_text("id-1")
            await flooding.hear_text("id-1")


async def test_flood_of_messages_takes_turns_with_others() -> None:
    async with running(hub()) as there:
        with ExitStack() as stack:
            flooding = [stack.enter_context(speaker(there)) for _ in range(3)]
            other = stack.enter_context(speaker(there))
            async with trio.open_nursery() as nursery:
                for one in flooding:
                    nursery.start_soon(one.flood, masked(TEXT))
                for number in range(1, 6):
                    await other.sock.send(masked(PING, b"%d" % number))
                    await other.hear(Pong, number)
                    there.publish(notifications(number, number))
                    await other.hear_text(f"id-{number}")
                nursery.cancel_scope.cancel()


async def test_each_is_read_a_share_in_a_turn_and_turns_have_their_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    said = ClientMessages()
    sending = Sending(Feed(), StreamLimits(10, 0), 1000)
    with ExitStack() as stack:
        streams = []
        for _ in range(2):
            near, far = map(stack.enter_context, map(closing, socket.socketpair()))
            far.setblocking(False)
            near.send(masked(TEXT, b"a" * 2 * RECEIVE_BYTES))
            reader = open_streams.Reader(ALL, 0, "127.0.0.1")
            streams.append(sending.adopt(reader, math.inf, far))
            said.note(streams[-1])
        for _ in range(2):
            heard = []
            for stream in said.turn():
                assert said.read(stream) is not None
                heard.append(stream)
            assert heard == streams
            assert list(said.turn()) == []
            await trio.sleep(said.due_at - trio.current_time())


async def test_client_that_closes_is_answered_and_forgotten() -> None:
    async with running(hub()) as there:
        with speaker(there) as one:
            await one.sock.send(close_with(1000, b"bye"))
            await one.hear(CloseConnection)
            await until(lambda: there.clients == 0)
            await one.hear_some()
            assert one.ended


async def test_client_that_hangs_up_in_the_middle_of_a_frame_is_forgotten() -> None:
    async with running(hub()) as there:
        with speaker(there) as one:
            await one.sock.send(masked(TEXT, b"hello")[:5])
        await until(lambda: there.clients == 0)
        assert not there._sockets.said._readers


async def test_reader_is_kept_only_while_something_is_unfinished() -> None:
    async with running(hub()) as there:
        with speaker(there) as one:
            readers = there._sockets.said._readers
            message = masked(TEXT, b"hello")
            await one.sock.send(message[:5])
            await until(lambda: len(readers) == 1)
            await one.sock.send(message[5:])
            await until(lambda: not readers)


async def test_stream_that_is_too_far_behind_is_told_so() -> None:
    """A snapshot took its events away; its socket takes the last words."""
    async with running(hub()) as there:
        with speaker(there) as one:
            there.publish(notifications(1, 5))
            await one.hear_text("id-5")
            there.reset(notifications(100, 110))
            [close] = await one.hear(CloseConnection)
            assert isinstance(close, CloseConnection)
            assert (close.code, close.reason) == (1008, "behind")
