"""What is read from NATS: streams, subjects of each, and how a message becomes an event.

A `Config` holds these tables (`[[nats_streams]]` in its TOML file), or makes one of them out of the
flags for the simple case.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUBJECT: Final = re.compile(
    r"(?=.{1,255}$)([^\s.*>\0-\x1f\x7f]+|\*)(\.([^\s.*>\0-\x1f\x7f]+|\*))*(\.>)?|>"
)

DecoderName: TypeAlias = Literal["category", "json", "text", "protobuf", "cloudevents"]
PlainDecoderName: TypeAlias = Literal["category", "json", "text", "cloudevents"]
"""Those that need nothing but their name."""

DEFAULT_STREAM: Final = "jobs"
DEFAULT_SUBJECT: Final = "jobs.noti.>"
"""What bb-dist-noti publishes to; its payload is decoded as `category`."""
DEFAULT_DURABLE: Final = "noti"

ALL_SUBJECTS: Final = ">"
"""Whatever a stream has; a stream that is missing cannot be made of it."""

STREAMS_MAX: Final = 16
"""Each has a connection, a consumer and a task of its own."""

SUBJECTS_MAX: Final = 64
"""Of one stream: a subject that is seen for the first time is compared with all of them."""


def nats_name(value: str) -> str:
    """Return the name of a stream or a consumer; raises `ValueError`."""
    if not _NAME.fullmatch(value):
        raise ValueError("is not a NATS name; use 1 to 128 letters, digits, - and _")
    return value


def nats_subject(value: str) -> str:
    """Return a subject, perhaps with wildcards; raises `ValueError`."""
    if not _SUBJECT.fullmatch(value):
        raise ValueError("is not a NATS subject; write for example jobs.noti.>")
    return value


def plain_subject(value: str) -> str:
    """Return a subject to publish to; raises `ValueError`."""
    if set("*>") & set(nats_subject(value)):
        raise ValueError("has a wildcard; name one subject, for example noti.dead-letter.jobs")
    if value.startswith("$"):
        raise ValueError("belongs to NATS itself; name another, for example noti.dead-letter.jobs")
    return value


NatsName: TypeAlias = Annotated[str, AfterValidator(nats_name)]
NatsSubject: TypeAlias = Annotated[str, AfterValidator(nats_subject)]
PlainSubject: TypeAlias = Annotated[str, AfterValidator(plain_subject)]


class SubjectSettings(BaseModel):
    """How messages of some subjects become events."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    subject: NatsSubject
    """Subjects, perhaps with wildcards; the first of a stream that matches counts."""
    decoder: DecoderName
    """How the payload is read."""
    topic: str | None = None
    """Template of the event's topic [default: the subject]."""
    descriptor_set: Path | None = None
    """File with a protobuf FileDescriptorSet; for the decoder `protobuf`."""
    message: str | None = None
    """Full name of a message in it."""


class StreamSettings(BaseModel):
    """One JetStream stream."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: NatsName
    """The stream."""
    subjects: tuple[SubjectSettings, ...]
    """What is read of it, one at least."""
    durable: NatsName | None = None
    """Durable consumer that all nodes of the cluster share [default: nats_durable]."""
    dead_letter: PlainSubject | None = None
    """Subject for what can never be an event [default: noti.dead-letter. and the stream]."""

    @property
    def dead_letter_subject(self) -> str:
        """Where what can never be an event goes."""
        return self.dead_letter or f"noti.dead-letter.{self.name}"

    @property
    def filters(self) -> tuple[str, ...]:
        """The subjects without those that others hold: NATS takes none twice."""
        return _widest([one.subject for one in self.subjects])


def stream_of_flags(
    name: str,
    subjects: Sequence[str],
    decoder: DecoderName | None,
    topic: str | None,
    dead_letter: str | None,
) -> StreamSettings:
    """Return the stream of the simple case; values that were left out suit its name."""
    is_default = name == DEFAULT_STREAM
    read = subjects or (DEFAULT_SUBJECT if is_default else ALL_SUBJECTS,)
    how = decoder or ("category" if is_default else "text")
    return StreamSettings(
        name=name,
        subjects=tuple(SubjectSettings(subject=one, decoder=how, topic=topic) for one in read),
        dead_letter=dead_letter,
    )


def problems_of_streams(streams: Sequence[StreamSettings]) -> Iterator[str]:
    """Yield why these cannot be read, each in a clause."""
    if len(streams) > STREAMS_MAX:
        yield f"has {len(streams)} streams; {STREAMS_MAX} are allowed"
        return
    names = [stream.name for stream in streams]
    for repeated in _repeated(names):
        yield f"has stream {repeated} twice; put all its subjects into one table"
    for stream in streams:
        for problem in _problems_of_subjects(stream):
            yield f"is wrong at stream {stream.name}: {problem}"
        if (reader := _reader_of(stream.dead_letter_subject, streams)) is not None:
            yield (
                f"is wrong at stream {stream.name}: what goes to {stream.dead_letter_subject} would"
                f" be read as an event, by {reader}; name another dead_letter"
            )


def _problems_of_subjects(stream: StreamSettings) -> Iterator[str]:
    subjects = stream.subjects
    if not subjects:
        yield "it has no subjects; add a table [[nats_streams.subjects]]"
    if len(subjects) > SUBJECTS_MAX:
        yield f"it has {len(subjects)} subjects; {SUBJECTS_MAX} are allowed"
        return
    for number, one in enumerate(subjects):
        if (problem := _problem_of_decoder(one)) is not None:
            yield f"subject {one.subject}: {problem}"
        for earlier in subjects[:number]:
            if subject_covers(earlier.subject, one.subject):
                hint = "remove one" if earlier.subject == one.subject else "put the narrower first"
                yield f"subject {one.subject} is never reached behind {earlier.subject}; {hint}"
                break
    for one_filter, other in combinations(stream.filters, 2):
        if subjects_overlap(one_filter, other):
            yield (
                f"subjects {one_filter} and {other} share some, and neither holds the other,"
                " which NATS does not take; name narrower ones, or one that holds both"
            )


def _problem_of_decoder(one: SubjectSettings) -> str | None:
    given = [one.descriptor_set, one.message]
    if one.decoder == "protobuf" and None in given:
        return "decoder protobuf needs descriptor_set, a file, and message, a name in it"
    if one.decoder != "protobuf" and given != [None, None]:
        return f"descriptor_set and message are for decoder protobuf, not for {one.decoder}"
    return None


def _reader_of(subject: str, streams: Sequence[StreamSettings]) -> str | None:
    """Return the stream that is read at a subject, as far as its settings tell."""
    for stream in streams:
        for one in stream.subjects:
            if one.subject != ALL_SUBJECTS and subject_covers(one.subject, subject):
                return f"stream {stream.name} at {one.subject}"
    return None


def _repeated(texts: Sequence[str]) -> Sequence[str]:
    return [text for text in dict.fromkeys(texts) if texts.count(text) > 1]


def _widest(subjects: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        one
        for one in dict.fromkeys(subjects)
        if not any(other != one and subject_covers(other, one) for other in subjects)
    )


def subject_covers(pattern: str, subject: str) -> bool:
    """Whether all that is published to a subject, perhaps with wildcards, matches a pattern."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for number, word in enumerate(wanted):
        if number == len(tokens):
            return False
        if word == ">":
            return True
        if tokens[number] == ">" or word not in ("*", tokens[number]):
            return False
    return len(wanted) == len(tokens)


def subjects_overlap(one: str, other: str) -> bool:
    """Whether a subject can match both patterns."""
    left, right = one.split("."), other.split(".")
    for mine, theirs in zip(left, right, strict=False):
        if ">" in (mine, theirs):
            return True
        if "*" not in (mine, theirs) and mine != theirs:
            return False
    return len(left) == len(right)
