"""Reads protobuf messages of any type, by a file of descriptors, and makes JSON of them.

JSON is that of protobuf, with the names of fields as they stand in the `.proto` file, and with
fields that are not set: an absent number is 0. Of integers of 64 bits it makes text.

This module imports Google's library, which takes a while: import it only when it is needed.
"""

import json
from pathlib import Path
from typing import Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from noti.errors import ConfigInvalid, MessageInvalid, TooLarge
from noti.publishing.events import EVENT_BYTES_MAX
from noti.publishing.nats.content import MessageContent
from noti.publishing.nats.ports import SourceMessage

DESCRIPTOR_SET_BYTES_MAX: Final = 16 * 1024 * 1024
"""Everything that a large company has in one file."""

VALUES_MAX: Final = 100_000
"""Values in one message, with those of fields that are not set. A megabyte of empty messages inside
would otherwise become minutes of work."""

_SMALL_BYTES: Final = 1024
"""Below this, values are not counted."""


class ProtobufDecoder:
    """Reads one type of message."""

    def __init__(self, descriptor_set: Path, message: str) -> None:
        """Read the file of descriptors; raises `ConfigInvalid`."""
        pool = _pool_of(descriptor_set)
        try:
            descriptor = pool.FindMessageTypeByName(message.removeprefix("."))
        except KeyError:
            raise ConfigInvalid(
                f"message {message!r} is not in {descriptor_set}; name it with its package"
            ) from None
        self._pool = pool
        self._name = descriptor.full_name
        self._class: type[Message] = GetMessageClass(descriptor)

    def __call__(self, message: SourceMessage, wall_ms: int) -> MessageContent:
        """Return the content; raises `MessageInvalid`."""
        payload = message.payload
        if len(payload) > EVENT_BYTES_MAX:
            raise TooLarge(f"{self._name} of {len(payload)} bytes; {EVENT_BYTES_MAX} are allowed")
        parsed = self._class()
        try:
            parsed.ParseFromString(payload)
        except DecodeError:
            raise MessageInvalid(f"{self._name}: the payload is no such message") from None
        if len(payload) > _SMALL_BYTES:
            _count(parsed, VALUES_MAX)
        try:
            fields = json_format.MessageToDict(
                parsed,
                always_print_fields_with_no_presence=True,
                preserving_proto_field_name=True,
                descriptor_pool=self._pool,
            )
        except (json_format.Error, ValueError, TypeError, OverflowError, RecursionError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise MessageInvalid(f"{self._name}: {text[:200]}") from None
        return MessageContent(json.dumps(fields, ensure_ascii=False, separators=(",", ":")), fields)


def _pool_of(file: Path) -> DescriptorPool:
    """Return the descriptors in a file; raises `ConfigInvalid`."""
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            # To read a pipe may take for ever, and a device may have no end.
            raise ConfigInvalid(f"descriptor_set {file} is no regular file")
        if file.stat().st_size > DESCRIPTOR_SET_BYTES_MAX:
            raise ConfigInvalid(f"descriptor_set {file} is over {DESCRIPTOR_SET_BYTES_MAX} bytes")
        data = file.read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"descriptor_set {file} cannot be read: {error.strerror}") from None
    advice = f"make it with protoc --include_imports --descriptor_set_out={file.name}"
    descriptors = FileDescriptorSet()
    try:
        descriptors.ParseFromString(data)
    except DecodeError:
        raise ConfigInvalid(f"descriptor_set {file} is none; {advice}") from None
    if not descriptors.file:
        raise ConfigInvalid(f"descriptor_set {file} is empty; {advice}")
    pool = DescriptorPool()
    for one in descriptors.file:
        try:
            pool.Add(one)  # they are in the order of their imports
        except (TypeError, ValueError, KeyError) as error:
            text = " ".join(str(error).split())[:200]
            raise ConfigInvalid(f"descriptor_set {file}, {one.name}: {text}; {advice}") from None
    return pool


def _count(message: Message, left: int) -> int:
    """Return how many values more there may be; raises `TooLarge`."""
    descriptor: Descriptor = message.DESCRIPTOR
    left -= len(descriptor.fields)
    for field, value in message.ListFields():
        if left < 0:
            break
        values = [value]
        if field.is_repeated:
            values = list(value.values()) if hasattr(value, "values") else list(value)
            left -= len(values)
        if field.message_type is not None:
            for one in values:
                left = _count(one, left) if isinstance(one, Message) else left
    if left < 0:
        raise TooLarge(f"{descriptor.full_name} has over {VALUES_MAX} values")
    return left
