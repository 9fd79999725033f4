"""Decoders, by the names that settings have for them."""

from typing import assert_never

from noti.publishing.nats.category import decode_category
from noti.publishing.nats.cloudevents import CloudEventDecoder
from noti.publishing.nats.content import Decode
from noti.publishing.nats.json_payload import decode_json, decode_text
from noti.stream_settings import SubjectSettings


def decoder_of(one: SubjectSettings, *, needs_fields: bool) -> Decode:
    """Return what reads the payloads of a subject; raises `ConfigInvalid`.

    Fields, for templates of topics, are read only if they are needed.
    """
    match one.decoder:
        case "category":
            return decode_category
        case "json":
            return decode_json
        case "text":
            return decode_text
        case "cloudevents":
            return CloudEventDecoder(needs_fields=needs_fields)
        case "protobuf":
            # Only then: importing Google's library takes 30 ms.
            from noti.publishing.nats.protobuf_payload import ProtobufDecoder

            assert one.descriptor_set is not None, "settings are checked"
            assert one.message is not None, "settings are checked"
            return ProtobufDecoder(one.descriptor_set, one.message)
        case _:
            assert_never(one.decoder)
