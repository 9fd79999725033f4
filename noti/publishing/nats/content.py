"""What a decoder makes of a message.

Enters: nothing. Leaves: the types that decoders and the mapping share.
Never: I/O, clocks.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from noti.publishing.nats.ports import SourceMessage


class MessageContent(NamedTuple):
    """A message as its payload has it; headers may say otherwise."""

    data: str
    """What readers get."""
    fields: object = None
    """A JSON value, for templates of topics; numbers may be text. None when nobody asks for it."""
    id: str = ""
    type: str = ""
    topic: str = ""
    """Empty: the subject."""
    created_ms: int | None = None
    """When it was made, wall time in milliseconds since 1970, if the payload says so."""


Decode: TypeAlias = Callable[[SourceMessage, int], MessageContent]
"""Reads a message at a wall time in milliseconds; raises `MessageInvalid`."""
