"""`noti.v1.Publisher` as publishers see it, over real sockets."""

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import pytest
import trio
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import (
    CommandUnknown,
    MessageInvalid,
    NotiError,
    Overloaded,
    ProposalUncertain,
    Unavailable,
)
from noti.publishing.ports import Draft, Outcome
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.inbox import FRAMES_AT_ONCE
from noti.rpc.publish_client import wire_event
from noti.rpc.publish_service import (
    REQUEST_BYTES_MAX,
    STREAM_BYTES_MAX,
    STREAM_EVENTS_MAX,
    STREAM_REQUESTS_MAX,
    decode_drafts,
    encode_outcome,
)
from tests.contract.test_rpc_network import Handler, Publications
from tests.rpc.test_grpc import ask, framed, serving

Answers: TypeAlias = list[wire.PublishStreamResponse]


class Held(Publications):
    """Keeps what it is given until the test answers."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Sequence[Draft], Callable[[Outcome], None]]] = []
        self.come = trio.Event()

    def submit(
        self, drafts: Sequence[Draft], done: Callable[[Outcome], None], *, at_once: bool = False
    ) -> None:
        self.waiting.append((drafts, done))
        self.come.set()
        self.come = trio.Event()

    async def wait_for(self, count: int) -> None:
        while len(self.waiting) < count:
            await self.come.wait()


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(*data: str) -> wire.PublishRequest:
    return wire.PublishRequest(events=[wire.Event(topics=["t"], data=one) for one in data])


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (MessageInvalid("bad"), Status.INVALID_ARGUMENT),
        (Overloaded("full"), Status.RESOURCE_EXHAUSTED),
        (ProposalUncertain("who knows"), Status.ABORTED),
        (Unavailable("no leader"), Status.UNAVAILABLE),
        (CommandUnknown(9), Status.INTERNAL),
    ],
)
async def test_each_failure_has_its_status(failure: NotiError, status: Status) -> None:
    async with serving(Handler(), Publications(failure)) as (asyncio_loop, _, address):
        with pytest.raises(GRPCError) as caught:
            await ask(asyncio_loop, address, lambda c: wire.PublisherStub(c).publish(request("x")))
        assert (caught.value.status, caught.value.message) == (status, str(failure))


async def test_event_belongs_to_the_trace_that_it_names_or_to_that_of_its_call() -> None:
    own = TRACE.replace("b7ad", "c7ad")
    publishing = Publications()
    events = [wire.Event(["t"], "of the call"), wire.Event(["t"], "own", traceparent=own)]

    async def use(channel: Channel) -> None:
        asked, metadata = wire.PublishRequest(events), {"traceparent": TRACE}
        await wire.PublisherStub(channel).publish(asked, metadata=metadata)
        stream = wire.PublisherStub(channel).publish_stream([asked], metadata=metadata)
        assert len([answer async for answer in stream]) == 1

    async with serving(Handler(), publishing) as (asyncio_loop, _, address):
        await ask(asyncio_loop, address, use)
    assert [draft.trace for draft in publishing.drafts] == [TRACE, own] * 2


async def test_stream_is_answered_in_order_and_goes_on_after_a_failure() -> None:
    publishing = Held()
    answers: Answers = []

    async def use(channel: Channel) -> None:
        requests = [request("0"), request("1"), request("2", "3")]
        answers.extend([a async for a in wire.PublisherStub(channel).publish_stream(requests)])

    async with (
        serving(Handler(), publishing) as (asyncio_loop, _, address),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, asyncio_loop, address, use)
        await publishing.wait_for(3)
        assert [d.data for drafts, _ in publishing.waiting for d in drafts] == list("0123")
        publishing.waiting[2][1](("id-2", "id-3"))
        publishing.waiting[1][1](Overloaded("full"))
        publishing.waiting[0][1](("id-0",))
    assert answers == [
        wire.PublishStreamResponse(published=wire.PublishResponse(ids=["id-0"])),
        wire.PublishStreamResponse(
            failure=wire.Failure(code=Status.RESOURCE_EXHAUSTED.value, message="full")
        ),
        wire.PublishStreamResponse(published=wire.PublishResponse(ids=["id-2", "id-3"])),
    ]


def raw_stream(*chunks: bytes) -> Callable[[Channel], Awaitable[Answers]]:
    """Return a call of the stream that sends bytes as they are."""

    async def use(channel: Channel) -> Answers:
        method = channel.request(
            "/noti.v1.Publisher/PublishStream",
            Cardinality.STREAM_STREAM,
            wire.PublishRequest,
            wire.PublishStreamResponse,
        )
        async with method as call:
            await call.send_request()
            for chunk in chunks:
                await call._stream.send_data(chunk)
            await call.end()
            return [answer async for answer in call]

    return use


async def test_garbage_in_a_stream_is_refused_and_the_stream_goes_on() -> None:
    async with serving(Handler(), Publications()) as (asyncio_loop, _, address):
        garbage, good = framed(b"\xff\xff\xff"), framed(bytes(request("x")))
        answers = await ask(asyncio_loop, address, raw_stream(garbage, good))
    assert isinstance(answers, list)
    assert answers[0].failure.code == Status.INVALID_ARGUMENT.value
    assert answers[1].published is not None


async def test_request_over_the_limit_ends_its_call_with_the_reason() -> None:
    too_long = struct.pack(">?I", False, REQUEST_BYTES_MAX + 1)
    async with serving(Handler(), Publications()) as (asyncio_loop, _, address):
        with pytest.raises(GRPCError, match="exceeds") as caught:
            await ask(asyncio_loop, address, raw_stream(too_long))
        assert caught.value.status is Status.INVALID_ARGUMENT
        answer = await ask(
            asyncio_loop, address, lambda c: wire.PublisherStub(c).publish(request("still there"))
        )
        assert answer == wire.PublishResponse(ids=["made-1"])


async def test_publisher_that_goes_away_harms_nobody() -> None:
    publishing = Held()

    async def leave(channel: Channel) -> None:
        stub = wire.PublisherStub(channel)
        await stub.publish(request("x"), timeout=0.05)

    async with serving(Handler(), publishing) as (asyncio_loop, _, address):
        with pytest.raises((GRPCError, TimeoutError)):
            await ask(asyncio_loop, address, leave)
        await publishing.wait_for(1)
        publishing.waiting[0][1](("id",))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                ask, asyncio_loop, address, lambda c: wire.PublisherStub(c).publish(request("y"))
            )
            await publishing.wait_for(2)
            publishing.waiting[1][1](("id",))


@pytest.mark.parametrize(
    ("one", "first"),
    [
        (request("x"), STREAM_REQUESTS_MAX),
        (request(*"x" * 64), STREAM_EVENTS_MAX // 64),
        (request("x" * 100_000), STREAM_BYTES_MAX // 100_000),
    ],
    ids=["requests", "events", "bytes"],
)
async def test_stream_with_too_much_unanswered_is_not_read(
    one: wire.PublishRequest, first: int
) -> None:
    """Nor is all at once what fills the window meanwhile."""
    publishing = Held()
    count = 5000 if first == STREAM_REQUESTS_MAX else 4 * first + 1000
    async with (
        serving(Handler(), publishing) as (asyncio_loop, _, address),
        trio.open_nursery() as nursery,
    ):
        messages = [framed(bytes(one))] * count
        nursery.start_soon(ask, asyncio_loop, address, raw_stream(*messages))
        for answered in range(count):
            await publishing.wait_for(answered + 1)
            if answered % 500 == 0:
                await publishing.wait_for(min(count, answered + first))
                with trio.move_on_after(0.05):
                    await publishing.wait_for(count + 1)
            # What came in the same turn was taken, too.
            assert len(publishing.waiting) - answered < first + FRAMES_AT_ONCE
            publishing.waiting[answered][1](("id",))


texts = st.text(max_size=200)
drafts = st.builds(
    Draft,
    st.lists(texts, max_size=3).map(tuple),
    texts,
    st.one_of(st.none(), st.text(min_size=1, max_size=200)),
    texts,
    st.integers(0, 2**32 - 1),
    st.booleans(),
    texts,
    trace=st.sampled_from(["", TRACE]),
)


@given(st.lists(drafts, max_size=4))
def test_requests_are_read_as_the_generated_classes_write_them(given: list[Draft]) -> None:
    events = [wire_event(one) for one in given]
    assert decode_drafts(bytes(wire.PublishRequest(events=events))) == given


@given(st.binary(max_size=60))
def test_random_bytes_are_read_as_the_generated_classes_read_them_or_refused(data: bytes) -> None:
    try:
        read = decode_drafts(data)
    except MessageInvalid:
        return
    parsed = wire.PublishRequest.parse(data).events
    assert [wire_event(one) for one in read] == parsed


@given(st.lists(drafts, min_size=1, max_size=2), st.data())
def test_cut_request_is_refused(given: list[Draft], data: st.DataObject) -> None:
    events = [wire_event(one) for one in given]
    last = bytes(wire.PublishRequest(events=events[-1:]))
    whole = bytes(wire.PublishRequest(events=events))
    cut = data.draw(st.integers(1, len(last) - 1))
    with pytest.raises(MessageInvalid):
        decode_drafts(whole[:-cut])


@given(st.lists(st.text("abc-:", min_size=1, max_size=128), max_size=60).map(tuple))
def test_answers_are_written_as_the_generated_classes_read_them(ids: tuple[str, ...]) -> None:
    answer = wire.PublishStreamResponse.parse(encode_outcome(ids))
    assert answer == wire.PublishStreamResponse(published=wire.PublishResponse(ids=list(ids)))
