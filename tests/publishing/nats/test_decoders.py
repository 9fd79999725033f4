"""Each decoder that settings can name is there."""

from typing import get_args

import pytest

from noti.publishing.nats.category import decode_category
from noti.publishing.nats.decoders import decoder_of
from noti.publishing.nats.json_payload import decode_json, decode_text
from noti.stream_settings import DecoderName, PlainDecoderName, SubjectSettings


@pytest.mark.parametrize("name", get_args(PlainDecoderName))
def test_every_plain_decoder_needs_nothing_but_its_name(name: PlainDecoderName) -> None:
    one = SubjectSettings(subject="a", decoder=name)
    decode = decoder_of(one, needs_fields=False)
    expected = {"category": decode_category, "json": decode_json, "text": decode_text}
    assert decode is expected.get(name, decode)


def test_flags_offer_all_but_protobuf() -> None:
    assert set(get_args(DecoderName)) - set(get_args(PlainDecoderName)) == {"protobuf"}
