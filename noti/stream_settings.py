"""What is read from NATS: streams, subjects of each, and how a message becomes an event.

A `Config` holds these tables (`[[nats_streams]]` in its TOML file), or makes one of them out of the
flags for the simple case.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SUBJECT: Final = re.compile(r"(?=.{1,255}$)([^\s.*>]+|\*)(\.([^\s.*>]+|\*))*(\.>)?|>")

DecoderName: TypeAlias = Literal["category", "json", "text", "protobuf", "cloudevents"]

DEFAULT_STREAM: Final = "jobs"
DEFAULT_SUBJECT: Final = "jobs.noti.>"
"""What bb-dist-noti publishes to; its payload is decoded as `category`."""


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


NatsName: TypeAlias = Annotated[str, AfterValidator(nats_name)]
NatsSubject: TypeAlias = Annotated[str, AfterValidator(nats_subject)]


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
    dead_letter: NatsSubject | None = None
    """Subject for what can never be an event [default: noti.dead-letter. and the stream]."""
