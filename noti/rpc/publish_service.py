"""`noti.v1.Publisher`: events from publishers, over gRPC; asyncio.

Requests become drafts for the node's `Publishing`, and are answered in their order, each once. What
became of an event is reported by a plain call from a Trio task of the same thread: it may finish an
asyncio future, or write the answer, and so costs no turn of the asyncio loop.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from noti.completion import OnDone
from noti.errors import (
    IdempotencyKeyReused,
    MessageInvalid,
    NotiError,
    Overloaded,
    ProposalUncertain,
    Unavailable,
)
from noti.history.traceparent import trace_of
from noti.protobuf import length_field, length_keys, number_in, number_keys, scan
from noti.publishing.ports import Draft, Outcome, Publishing
from noti.rpc.connections import PeerStream, stream_of
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.rejected_calls import RejectedCalls
from noti.rpc.services import Call
from noti.rpc.unary import UnaryAnswers

log = structlog.get_logger("noti.rpc")

REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest request: gRPC's customary limit, room for four of the longest events."""

STREAM_REQUESTS_MAX: Final = 1024
STREAM_EVENTS_MAX: Final = 4096
STREAM_BYTES_MAX: Final = 4 * 1024 * 1024
"""What one stream may have unanswered. With any of them (and what came with it: 255 requests, or a
window of 4 MiB) it is not read, its window fills, and its publisher waits. Twice what two commands
take, which is all that is under way at once, and far less than a node takes (`PublishLimits`): so a
publisher alone that is never told to wait is slowed down, and not rejected."""

# By hand, as both are hot: see `scan`.
_REQUEST_KEYS: Final = length_keys(1)
_EVENT_KEYS: Final = length_keys(1, 2, 3, 4, 7, 8)
_EVENT_NUMBERS: Final = number_keys(5, 6)


class PublisherService:
    """One task a call."""

    def __init__(self, publishing: Publishing, rejected: RejectedCalls) -> None:
        self._publishing = publishing
        self._rejected = rejected
        self._answers = UnaryAnswers()

    def __mapping__(self) -> dict[str, Handler]:
        """Return grpclib's routing table."""
        request, prefix = wire.PublishRequest, "/noti.v1.Publisher"
        return {
            f"{prefix}/Publish": Handler(
                # grpclib would miss an answer that was not written by itself.
                self._publish,
                Cardinality.UNARY_STREAM,
                request,
                wire.PublishResponse,
            ),
            f"{prefix}/PublishStream": Handler(
                self._publish_stream,
                Cardinality.STREAM_STREAM,
                request,
                wire.PublishStreamResponse,
            ),
        }

    async def _publish(self, call: Call) -> None:
        stream = stream_of(call, REQUEST_BYTES_MAX)
        try:
            frame = await stream.inbox.read()
            drafts = decode_drafts(frame or b"", _trace_of(call))
        except MessageInvalid as error:
            self._rejected.report(stream.connection.transport, "request", str(error))
            raise _rejection(error) from error
        loop = asyncio.get_running_loop()
        completion: asyncio.Future[Outcome | None] = loop.create_future()

        def on_done(outcome: Outcome) -> None:
            if completion.done():
                return  # the caller has gone
            answered = not isinstance(outcome, NotiError) and self._answers.write(
                stream, encode_ids(outcome), loop
            )
            completion.set_result(None if answered else outcome)

        self._publishing.submit(drafts, on_done)
        outcome = await completion
        if isinstance(outcome, NotiError):
            raise _rejection(outcome)
        if outcome is not None:
            await call.send_message(wire.PublishResponse(ids=list(outcome)))

    async def _publish_stream(self, call: Call) -> None:
        await call.send_initial_metadata()
        stream = stream_of(call, REQUEST_BYTES_MAX)
        answers, trace = _Answers(stream), _trace_of(call)
        writing = asyncio.create_task(answers.write())

        def take(requests: Sequence[bytes]) -> bool:
            for number, request in enumerate(requests, start=1):
                try:
                    drafts = decode_drafts(request, trace)
                except MessageInvalid as error:
                    self._rejected.report(stream.connection.transport, "request", str(error))
                    answers.expect(len(request), 0)(error)
                else:
                    on_done = answers.expect(len(request), len(drafts))
                    self._publishing.submit(drafts, on_done, at_once=number == len(requests))
            return answers.have_room()

        try:
            while await stream.inbox.receive(take, asyncio.Event):
                await answers.wait_for_room()
            answers.end()
            await writing
        except MessageInvalid as error:
            self._rejected.report(stream.connection.transport, "request", str(error))
            raise _rejection(error) from error
        finally:
            writing.cancel()


@dataclass(slots=True, eq=False)
class _Question:
    """A request of a stream, and its place in the order of answers."""

    size_bytes: int
    events: int
    outcome: Outcome | None = None


class _Answers:
    """The answers of one stream, written in the order of the questions."""

    def __init__(self, stream: PeerStream) -> None:
        self._stream = stream
        self._questions: deque[_Question] = deque()
        self._events = 0
        self._bytes = 0
        self._unwritten: list[bytes] = []
        self._ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def expect(self, size_bytes: int, events: int) -> OnDone[tuple[str, ...]]:
        """Note one more question, with so many events; return what takes its outcome."""
        question = _Question(size_bytes, events)
        self._questions.append(question)
        self._bytes += size_bytes
        self._events += events
        return partial(self._answer, question)

    def have_room(self) -> bool:
        """Tell whether there may be more questions."""
        return (
            len(self._questions) < STREAM_REQUESTS_MAX
            and self._events < STREAM_EVENTS_MAX
            and self._bytes < STREAM_BYTES_MAX
        )

    async def wait_for_room(self) -> None:
        """Return when there may be more questions."""
        while not self.have_room():
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """Note that there are no more questions."""
        self._ended = True
        self._news.set()

    def _answer(self, question: _Question, outcome: Outcome) -> None:
        """Take an outcome; write it at once if it is its turn and nothing waits."""
        question.outcome = outcome
        if not self._questions or self._questions[0] is not question:
            return
        if self._news.is_set() or not self._write_at_once():
            self._news.set()

    def _write_at_once(self) -> bool:
        answers = self._take()
        try:
            if not answers or self._stream.write_at_once(*answers):
                return True
        except Exception as error:  # noqa: BLE001 - the caller is the log, and has no part in this
            log.debug("an answer was not sent", error=repr(error))
            return True  # nobody is there to be answered
        self._unwritten += answers
        return False

    async def write(self) -> None:
        """Write what could not be written at once, until there are no more questions."""
        while self._questions or self._unwritten or not self._ended:
            await self._news.wait()
            answers, self._unwritten = self._unwritten + self._take(), []
            if answers:
                await self._stream.write(*answers)
            if not self._questions or self._questions[0].outcome is None:
                self._news.clear()

    def _take(self) -> list[bytes]:
        """Return the answers that are next, encoded."""
        answers = []
        while self._questions and (outcome := self._questions[0].outcome) is not None:
            question = self._questions.popleft()
            self._events -= question.events
            self._bytes -= question.size_bytes
            answers.append(encode_outcome(outcome))
        if answers:
            self._room.set()
        if self._ended:
            self._news.set()
        return answers


def decode_drafts(data: bytes, trace: str = "") -> list[Draft]:
    """Return the events of a `PublishRequest`; raises `MessageInvalid`.

    Those that do not name a trace belong to that of the call.
    """
    try:
        return [_draft(event, trace) for _, event in scan(data, _REQUEST_KEYS)]
    except UnicodeDecodeError as error:
        raise MessageInvalid(f"an event with text that is not UTF-8: {error.reason}") from None


def _draft(event: bytes, trace: str) -> Draft:
    topics: list[str] = []
    data = event_id = event_type = key = ""
    retry_ms, private = 0, False
    for number, value in scan(event, _EVENT_KEYS, _EVENT_NUMBERS):
        if number == 1:
            topics.append(value.decode())
        elif number == 2:
            data = value.decode()
        elif number == 3:
            event_id = value.decode()
        elif number == 4:
            event_type = value.decode()
        elif number == 5:
            retry_ms = number_in(value)
        elif number == 6:
            private = number_in(value) != 0
        elif number == 7:
            key = value.decode()
        else:
            trace = trace_of(value.decode())
    # Made as a tuple is: the call that names fields takes three times as long.
    fields = (tuple(topics), data, event_id or None, event_type, retry_ms, private, key, trace)
    return tuple.__new__(Draft, fields)


def _trace_of(call: Call) -> str:
    """Return the trace that a call's metadata names."""
    return trace_of(str((call.metadata or {}).get("traceparent", "")))


def encode_outcome(outcome: Outcome) -> bytes:
    """Return a `PublishStreamResponse`."""
    if isinstance(outcome, NotiError):
        failure = wire.Failure(code=status_of(outcome).value, message=str(outcome))
        return bytes(wire.PublishStreamResponse(failure=failure))
    return length_field(1, encode_ids(outcome))


def encode_ids(ids: Sequence[str]) -> bytes:
    """Return a `PublishResponse`."""
    return b"".join([length_field(1, one.encode()) for one in ids])


def status_of(error: NotiError) -> Status:
    """Return the gRPC status of what went wrong; publisher.proto says what each means."""
    match error:
        case MessageInvalid():
            return Status.INVALID_ARGUMENT
        case IdempotencyKeyReused():
            return Status.ALREADY_EXISTS
        case Overloaded():
            return Status.RESOURCE_EXHAUSTED
        case ProposalUncertain():
            return Status.ABORTED
        case Unavailable():
            return Status.UNAVAILABLE
        case _:
            return Status.INTERNAL


def _rejection(error: NotiError) -> GRPCError:
    return GRPCError(status_of(error), str(error))
