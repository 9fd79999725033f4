"""Decides how a request to publish is answered, whichever way it came in.

It does no I/O and never waits: from the head and the body of a `POST`, and what its publisher may
do, it makes a `Draft` to commit, or an `Answer`; and an answer from what became of the event.

The status of what is wrong depends on the dialect in use, that of the publisher's token (Mercure
0.x or 1.0); the texts say what to do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

from noti.authorization.grant import Action, Dialect, Grant
from noti.authorization.presented import TOKEN_PARAMETER, Presented
from noti.authorization.rejection import Reason, TokenRejected
from noti.errors import (
    IdempotencyKeyReused,
    MessageInvalid,
    Overloaded,
    ProposalUncertain,
    TooLarge,
    Unavailable,
    sentence,
)
from noti.history.reserved_topics import reserved_in_0x, reserved_in_1_0
from noti.history.traceparent import trace_of
from noti.http.answers import PLAIN, RETRY_AFTER, Answer, plain, rejected
from noti.http.forms import parse_form, problem_of_type, values_of
from noti.publishing.events import TOPICS_MAX
from noti.publishing.ports import Draft, Outcome

FIELDS_MAX: Final = 4096
"""Fields of one form; four times the topics, each of which is one."""
RETRY_DIGITS_MAX: Final = 10
"""Longest time to reconnect: 115 days."""


@dataclass(eq=False)
class PublishRequest:
    """The head of a POST. What is read of it is remembered: publishers send the same again."""

    path: str
    query: str = field(repr=False)
    """As it stands in the target, still percent-encoded."""
    header: Callable[[str], str]
    """Returns a header's value by its lower-case name; empty when there is none."""
    peer: str
    """IP address at the other end of the connection."""
    hub_url: str
    """The hub's address as this request has it, or as the operator has named it."""
    version: str = "1.1"
    grant: Grant | None = None
    """What it was admitted with the last time; given while the authorizer had this …"""
    generation: int = 0
    """… generation of keys."""

    @cached_property
    def presented(self) -> Presented:
        """What it shows of its publisher."""
        return Presented.by(
            self.header,
            method="POST",
            hub_url=self.hub_url,
            query_tokens=values_of(self.query, TOKEN_PARAMETER),
        )

    @cached_property
    def type_problem(self) -> str | None:
        """Why a body of its Content-Type cannot be read."""
        return problem_of_type(self.header("content-type"))

    @cached_property
    def has_length(self) -> bool:
        """Whether it says where its body ends."""
        is_framed = self.header("content-length") or self.header("transfer-encoding")
        return bool(is_framed) or self.version == "2"

    @cached_property
    def idempotency_key(self) -> str:
        """What its publisher tells retries by; empty for nothing."""
        return self.header("idempotency-key")

    @cached_property
    def trace(self) -> str:
        """The trace that its publisher wants the event to be seen in; empty for none."""
        return trace_of(self.header("traceparent"))


class PublishAuthorizer(Protocol):
    """Knows what tokens allow: `noti.authorization.authorizer.Authorizer`."""

    def grant(self, presented: Presented, action: Action, *, now: float) -> Grant:
        """Return what the request may do at Unix time `now`; raises `TokenRejected`."""

    @property
    def generation(self) -> int:
        """Changes whenever keys do."""

    def holds(self, grant: Grant, generation: int, now: float) -> bool:
        """Whether a grant, given while `generation` was this one, would be given again."""


def admit(request: PublishRequest, authorizer: PublishAuthorizer, now: float) -> Grant | Answer:
    """Return what the publisher may do at Unix time `now`, or how to answer it.

    Its body is not read before.
    """
    known = request.grant
    if known is not None and authorizer.holds(known, request.generation, now):
        return known
    request.grant, request.generation = None, authorizer.generation
    try:
        grant = authorizer.grant(request.presented, Action.PUBLISH, now=now)
    except TokenRejected as rejection:
        return rejected(rejection, request.hub_url)
    if request.type_problem is not None:
        return plain(415, request.type_problem)
    if not request.has_length:
        return plain(411, "Nobody knows where the body ends; send a Content-Length.")
    request.grant = grant
    return grant


def draft_of(grant: Grant, request: PublishRequest, body: bytes) -> Draft | Answer:
    """Return the event to commit, or how to answer."""
    in_0x = grant.dialect is not Dialect.V1
    try:
        fields = parse_form(body, FIELDS_MAX)
        topics = tuple([value for name, value in fields if name == "topic"])
        if not topics:
            return plain(400, 'Missing "topic" parameter: name at least one.')
        if len(topics) > TOPICS_MAX:
            raise TooLarge(f"An event has at most {TOPICS_MAX} topics; name fewer.")
        reserved = reserved_in_0x if in_0x else reserved_in_1_0
        for topic in topics:
            if reserved(topic):
                text = f"The topic {topic[:80]!r} is reserved for the hub; choose another one."
                return plain(403 if in_0x else 400, text)
        draft = _draft(topics, fields, request, in_0x=in_0x)
    except TooLarge as error:
        return plain(400 if in_0x else 413, str(error))
    except MessageInvalid as error:
        return plain(400, str(error))
    if not grant.may_publish(topics):
        text = "the token does not allow to publish to all of these topics; get one that does"
        rejection = TokenRejected(Reason.INSUFFICIENT, text, Dialect.V0 if in_0x else Dialect.V1)
        return rejected(rejection, request.hub_url)
    return draft


def _draft(
    topics: tuple[str, ...],
    fields: Sequence[tuple[str, str]],
    request: PublishRequest,
    *,
    in_0x: bool,
) -> Draft:
    first = dict(reversed(fields))  # of several, the first
    event_id = first.get("id", "")
    if event_id.startswith("#"):
        raise MessageInvalid('Invalid "id" parameter: it must not begin with #.')
    retry = first.get("retry", "0" if in_0x else None)
    retry_ms = 0
    if retry or (retry is not None and not in_0x):
        if not (retry.isascii() and retry.isdigit() and len(retry) <= RETRY_DIGITS_MAX):
            raise MessageInvalid(
                f'Invalid "retry" parameter: milliseconds, 1 to {RETRY_DIGITS_MAX} digits.'
            )
        retry_ms = int(retry)
    return Draft(
        topics,
        first.get("data", ""),
        event_id or None,
        first.get("type", ""),
        retry_ms,
        "private" in first,
        request.idempotency_key,
        request.trace,
    )


def answer_to(outcome: Outcome) -> Answer:
    """Return what the publisher is told about its event: its id, or why there is none."""
    match outcome:
        case tuple():
            return Answer(200, [("Content-Type", PLAIN)], outcome[0].encode())
        case IdempotencyKeyReused():
            return plain(422, sentence(outcome))
        case TooLarge():
            return plain(413, sentence(outcome))
        case MessageInvalid():
            return plain(400, sentence(outcome))
        case ProposalUncertain():
            return plain(
                504,
                "Nobody knows yet whether the event is committed; publish it again: with the same"
                " id or Idempotency-Key, it is shown once.",
            )
        case Overloaded() | Unavailable():
            return _later(f"Nothing was committed: {outcome}.")
        case _:
            return plain(500, "The event could not be committed; look at the logs of this node.")


def body_too_large(bytes_max: int) -> Answer:
    """Return the answer to a body that is not read."""
    return plain(
        413, f"The body is longer than {bytes_max} bytes (--publish-body-bytes-max); send less."
    )


def no_room() -> Answer:
    """Return the answer to a body for which there is no memory now."""
    return _later("The bodies of other requests take all memory that they may; retry later.")


def not_ready() -> Answer:
    """Return the answer of a node that has just begun, and does not know yet who may publish."""
    return _later("Nothing was committed: this node has just started; retry, or ask another one.")


def _later(text: str) -> Answer:
    return plain(503, text, RETRY_AFTER)
