"""A publisher's end of `noti.v1.Publisher`, for commands; asyncio.

It sends drafts to one node and returns the ids of what is committed. It does not retry, and trusts
no server whose certificate is not a node's.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from noti.address import Address, format_address
from noti.certificates.names import claims
from noti.errors import (
    MessageInvalid,
    NotiError,
    Overloaded,
    PeerUnavailable,
    ProposalUncertain,
    RemoteError,
    Unavailable,
)
from noti.protobuf import parse
from noti.publishing.ports import Draft
from noti.rpc.connections import PeerStream, stream_of
from noti.rpc.dialing import FOREIGN_ERRORS, Dialer, PeerChannel, describe, rejection_in
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.tls import certificate_of

WITHIN_S: Final = 10.0
"""How long a connection, and each answer, may take, if nothing else is said. A node that lives says
within 5 s that it found no leader, and within 10 more that nothing was committed."""
ANSWER_BYTES_MAX: Final = 2 * 1024 * 1024
"""A thousand ids of 256 characters, each of four bytes at most."""

_UNKNOWN: Final = "what was sent may or may not be committed"
_METHOD: Final = "/noti.v1.Publisher/PublishStream"
_ERRORS: Final[dict[int, type[NotiError]]] = {
    Status.INVALID_ARGUMENT.value: MessageInvalid,
    Status.RESOURCE_EXHAUSTED.value: Overloaded,
    Status.ABORTED.value: ProposalUncertain,
    Status.ALREADY_EXISTS.value: RemoteError,
}


def wire_event(draft: Draft) -> wire.Event:
    """Return a draft as it travels."""
    return wire.Event(
        list(draft.topics),
        draft.data,
        draft.id or "",
        draft.type,
        draft.retry_ms,
        draft.private,
        draft.idempotency_key,
        draft.trace,
    )


class PublishStream:
    """One stream of requests to one node, one at a time; made by `open_publish_stream`."""

    def __init__(self, to: Address, stream: PeerStream, within_s: float) -> None:
        self._to = to
        self._stream = stream
        self._within_s = within_s

    async def publish(self, drafts: Sequence[Draft]) -> list[str]:
        """Return the events' ids when all are committed.

        Raises `MessageInvalid`, `Overloaded` or `Unavailable` when none is committed,
        `ProposalUncertain` when nobody knows, another `RemoteError` when some were dropped, as
        their idempotency keys were used. *Cancellation*: nobody knows either, and the stream
        can be used no more.
        """
        events = [wire_event(draft) for draft in drafts]
        where = format_address(self._to)
        try:
            async with asyncio.timeout(self._within_s):
                await self._stream.write(bytes(wire.PublishRequest(events)))
                frame = await self._stream.inbox.read()
            answer = parse(wire.PublishStreamResponse, frame or b"")
        except TimeoutError:
            raise ProposalUncertain(
                f"no answer from {where} within {self._within_s:g} s; {_UNKNOWN}"
            ) from None
        except (MessageInvalid, *FOREIGN_ERRORS) as error:
            raise ProposalUncertain(f"{describe(self._to, error)}; {_UNKNOWN}") from error
        if answer.failure is not None:
            kind = _ERRORS.get(answer.failure.code, Unavailable)
            raise kind(f"{where} says: {answer.failure.message}")
        if answer.published is None or len(answer.published.ids) != len(drafts):
            raise ProposalUncertain(f"{where} hung up; {_UNKNOWN}")
        return answer.published.ids


@asynccontextmanager
async def open_publish_stream(
    to: Address,
    context: ssl.SSLContext | None,
    *,
    plain_too: bool = False,
    within_s: float = WITHIN_S,
) -> AsyncIterator[PublishStream]:
    """Connect, and hang up at the end. `context` is None to speak plain text.

    With `plain_too`, plain text is spoken also to a node that has no TLS. Connecting may take
    `within_s` seconds, and so may each answer.

    Raises `PeerUnavailable`, also when who answers is no node, or does not let us publish.
    """
    channel = PeerChannel(Dialer(to, context, plain_too=plain_too))
    call = channel.request(
        _METHOD, Cardinality.STREAM_STREAM, wire.PublishRequest, wire.PublishStreamResponse
    )
    try:
        try:
            async with asyncio.timeout(within_s):
                await call.__aenter__()
                await call.send_request()
                stream = stream_of(call, ANSWER_BYTES_MAX)
                _check_node(certificate_of(stream.connection.transport))
                await call.recv_initial_metadata()
        except TimeoutError:
            raise PeerUnavailable(
                f"cannot reach {format_address(to)}: no answer within {within_s:g} s; "
                "is it the RPC port of a node that runs?"
            ) from None
        except (MessageInvalid, *FOREIGN_ERRORS) as error:
            rejection = rejection_in(channel.dialer, error)
            reason = (
                describe(to, error) if rejection is None else f"{format_address(to)} {rejection}"
            )
            unimplemented = isinstance(error, GRPCError) and error.status is Status.UNIMPLEMENTED
            if rejection is None and (unimplemented or isinstance(error, StreamTerminatedError)):
                reason += "; is it the RPC port of a node?"
            raise PeerUnavailable(reason) from error
        yield PublishStream(to, stream, within_s)
    finally:
        channel.close()


def _check_node(certificate: bytes | None) -> None:
    """Raise unless it is a node's: any other server of the CA could claim to commit events."""
    if certificate is not None and (held := claims(certificate)).profile != "node":
        raise PeerUnavailable(f"the certificate there, for {held}, is not a node's")
